"""Rules about the data and the first loss: are they finite, is the data scaled, is the loss near the uninformed one."""

from __future__ import annotations

import math

from ..flow import Row, log10
from ..records import Finding, Severity
from ..records.remedies import Remedy
from . import proposals
from .network import Network
from .thresholds import Thresholds
from .wording import finding, num, percent


def non_finite(network: Network, thresholds: Thresholds) -> list[Finding]:
    """NaN or infinity: in the data, in a weight, or in the first layer that produced it."""
    del thresholds  # one is too many
    for row in network.rows:
        if row.info.role in ("input", "target") and row.stats.activation_nonfinite > 0.0:
            share = row.stats.activation_nonfinite
            what = "data" if row.info.role == "input" else "targets"
            message = f"the {what} {row.path} contain NaN or infinity: {_share(share)} of the values"
            return [_non_finite(row, message, share, "data", proposals.without_non_finite(row.path))]
    for row in network.rows:
        if row.stats.weight_nonfinite > 0.0:
            share = row.stats.weight_nonfinite
            message = f"{_share(share)} of the weights of {row.path} are NaN or infinite"
            return [_non_finite(row, message, share, "weight", proposals.for_kernels(network, [row], bias=True))]
    for i in network.order:
        row = network.rows[i]
        before, after = row.stats.preactivation_nonfinite, row.stats.activation_nonfinite
        if row.info.role == "layer" and (before > 0.0 or after > 0.0):
            share = max(x for x in (before, after) if not math.isnan(x))
            arriving = [network.rows[p].stats.activation_max for p in network.parents[i]]
            largest = max((x for x in arriving if math.isfinite(x)), default=math.nan)
            message = (
                f"NaN or infinity first appears in {row.path}: {_share(share)} of its values, "
                f"although its inputs are finite (at most {num(largest)})"
            )
            # An activation hides it: a fused ReLU turns NaN into 0, and the loss stays finite.
            return [_non_finite(row, message, share, "forward", hidden=bool(before > 0.0) and not after > 0.0)]
    for row in reversed([network.rows[i] for i in network.order]):
        share = max((x for x in (row.stats.backward_nonfinite, row.stats.gradient_nonfinite) if x > 0.0), default=0.0)
        if share > 0.0:
            message = (
                f"the gradient is NaN or infinite at {row.path} ({_share(share)} of it): this is the last such layer"
            )
            return [_non_finite(row, message, share, "backward")]
    if network.snapshot.statistics and math.isinf(network.snapshot.loss):
        return [_non_finite(None, "the loss is infinite", 1.0, "loss")]
    return []


def _share(fraction: float) -> str:
    return percent(fraction) if fraction >= 0.01 else f"{num(100 * fraction)} %"


def _non_finite(
    row: Row | None, message: str, share: float, origin: str, remedy: Remedy | None = None, *, hidden: bool = False
) -> Finding:
    return finding(
        "non-finite",
        "bad",
        row.path if row is not None else None,
        message,
        observed=share,
        expected=0.0,
        threshold=0.0,
        unit="fraction of values",
        layers=[row.path] if row is not None and row.info.role in ("layer", "weight") else [],
        origin=origin,
        hidden_by_activation=hidden,
        remedy=remedy,
    )


def input_scale(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The data reaches the first trained layer unscaled, or far too small; or the regression targets are unscaled.

    What counts is what arrives behind the model's own rescaling, and not at all where a normalisation follows at once.
    """
    found: list[Finding] = []
    for row in network.firsts:
        if network.normalised_after(row):
            continue
        # A normalisation after the kernel brings small data nearer to unit scale, and the next one nearer still.
        weakly = network.feeds(row, "batch")
        for p in network.parents[row.index]:
            source = network.rows[p]
            rms, mean, std, largest, prepared = _arriving(row, source)
            if not prepared and (source.info.lookup or source.normalises):
                continue
            if not math.isfinite(rms) or rms == 0.0:
                continue
            high = rms >= thresholds.input_high_warning
            if not high and rms > thresholds.input_low_warning:
                continue
            too_high = _too_high(network, thresholds)
            bad = rms >= too_high or (rms <= thresholds.input_low_bad and not weakly)
            limits = (
                (too_high if bad else thresholds.input_high_warning)
                if high
                else (thresholds.input_low_bad if bad else thresholds.input_low_warning)
            )
            low = 0.0 if mean > 0.0 and mean >= 0.3 * rms else -largest
            found.append(
                finding(
                    "input-scale",
                    "bad" if bad else "warning",
                    row.path,
                    f"the data reaches {row.path} with an rms of {num(rms)} (largest {num(largest)}); about 1 is usual",
                    observed=rms,
                    expected=1.0,
                    threshold=limits,
                    unit="rms of the data at the first trained layer",
                    layers=[row.path],
                    affected=[source.path, row.path],
                    source=source.path,
                    mean=mean,
                    largest=largest,
                    remedy=proposals.rescaled(source.path, std, low, largest, source.info.shape)
                    if source.info.role == "input" and not prepared
                    else None,
                )
            )
            break
    return [*found[:1], *_target_scale(network, thresholds)]


def _arriving(row: Row, source: Row) -> tuple[float, float, float, float, bool]:
    """Rms, mean, standard deviation and largest value of what arrives at a kernel from the data.

    And whether a person's own code between the two has made something else of the data; a cast to another type has not.
    """
    entering, given = row.stats.entering_rms, source.stats.activation_rms
    if math.isfinite(entering) and not math.isclose(entering, given, rel_tol=0.01):
        own = row.stats
        return entering, own.entering_mean, own.entering_std, own.entering_max, True
    own = source.stats
    return given, own.activation_mean, own.activation_std, own.activation_max, False


def _too_high(network: Network, thresholds: Thresholds) -> float:
    """The rms from which data is bad: the first step of SGD is far too long, or Adam needs too many steps."""
    if network.adaptive:
        far = math.pow(10.0, network.no_way_back(thresholds))
        return max(thresholds.input_high_bad, min(thresholds.input_high_bad_adaptive, far))
    step = network.first_step()
    runs_away = not network.bounded and (math.isnan(step) or step >= thresholds.input_step_bad)
    harms = runs_away or network.stands_still(network.kernels, thresholds)
    return thresholds.input_high_bad if harms else thresholds.input_high_bad_adaptive


def _target_scale(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Regression targets of large scale; the numbers of classes have none."""
    if not _numbers(network):
        return []
    for row in network.rows:
        rms, std = row.stats.activation_rms, row.stats.activation_std
        if row.info.role != "target" or not rms >= thresholds.target_high_warning:
            continue
        severity: Severity = "bad" if rms >= thresholds.target_high_bad else "warning"
        return [
            finding(
                "input-scale",
                severity,
                row.path,
                f"the targets {row.path} of this batch have an rms of {num(rms)}, but the outputs of a new model "
                "are about 1",
                observed=rms,
                expected=1.0,
                threshold=thresholds.target_high_bad if severity == "bad" else thresholds.target_high_warning,
                unit="rms of the targets",
                layers=[],
                affected=[row.path, *(head.path for head in network.heads)],
                mean=row.stats.activation_mean,
                largest=row.stats.activation_max,
                remedy=proposals.standardised(network, std),
            )
        ]
    return []


def initial_loss(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The first loss is far above that of an uninformed model: the start is over-confident.

    Regularizers are part of the loss that Keras reports, so that the outputs must be large too.
    """
    loss, baseline = network.snapshot.loss, network.snapshot.baseline_loss
    if baseline is None or not baseline > 0.0 or not math.isfinite(loss):
        return []
    ratio = loss / baseline
    if ratio < thresholds.loss_warning:
        return []
    sure = [(row.output_rms, row) for row in network.heads]
    rms, head = max(
        ((x, row) for x, row in sure if math.isfinite(x)), key=lambda pair: pair[0], default=(math.nan, None)
    )
    targets = [row.stats for row in network.rows if row.info.role == "target"]
    offset = max((abs(s.activation_mean) for s in targets if math.isfinite(s.activation_mean)), default=0.0)
    deviation = max((s.activation_std for s in targets if math.isfinite(s.activation_std)), default=0.0)
    far = _numbers(network) and deviation > 0.0 and offset > 3.0 * deviation and offset > rms
    if head is None or (rms < 3.0 and not far):
        return []
    limit = _too_large(network, head, thresholds)
    severity: Severity = "bad" if ratio >= limit else "warning"
    if far:
        mean = next(s.activation_mean for s in targets if abs(s.activation_mean) == offset)
        remedy: Remedy | None = proposals.centered(network)
        why = f"the targets of this batch lie around {num(mean)}, the outputs around 0"
    else:
        remedy = proposals.for_kernels(network, [head], bias=True)
        why = f"the outputs of {head.path} before the loss have an rms of {num(rms)}"
    return [
        finding(
            "initial-loss",
            severity,
            head.path,
            f"the first loss is {num(loss)}, {num(ratio)} times that of a model that knows nothing ({num(baseline)}): "
            f"{why}",
            observed=ratio,
            expected=1.0,
            threshold=limit if severity == "bad" else thresholds.loss_warning,
            unit="loss over the loss of an uninformed model",
            layers=[head.path],
            loss=loss,
            baseline_loss=baseline,
            output_rms=rms,
            first_step_log10=network.first_step(),
            remedy=remedy,
        )
    ]


def _numbers(network: Network) -> bool:
    """Whether the loss takes the targets for numbers: regression."""
    return network.snapshot.loss_kind in ("squares", "distances")


def _too_large(network: Network, head: Row, thresholds: Thresholds) -> float:
    """The first loss, over that of a model that knows nothing, from which it is bad.

    For classes it is enough that the right one is the largest. A mean square brings the outputs down to the size of the
    targets, and its gradient has no limit.
    """
    limits, squares = [math.inf], network.snapshot.loss_kind == "squares"
    if network.first_step() >= thresholds.first_step_bad and (squares or not network.bounded):
        limits.append(thresholds.loss_warning)
    if squares:  # for an adaptive optimizer the size of the outputs counts, which is the root of it
        limits.append(thresholds.loss_bad**2 if network.adaptive else thresholds.loss_bad)
    if network.adaptive:
        limits.append(math.pow(10.0, network.no_way_back(thresholds)))
    if _last_step(network, head) <= thresholds.head_step_bad:
        limits.append(thresholds.loss_bad)
    return min(limits)


def _last_step(network: Network, head: Row) -> float:
    """Log10 of the share of the last layer's weights that one update can change; of an unknown step, the worst."""
    rate, gradient = network.snapshot.learning_rate, 1.0
    if not network.adaptive:
        gradient = head.stats.gradient_rms * network.persistence
        if not rate or math.isnan(gradient):
            return -math.inf
    return log10((rate or 1.0) * gradient / max(head.stats.weight_rms, 1e-30))
