"""Rules about the data and the first loss: are they finite, is the data scaled, is the loss near the uninformed one."""

from __future__ import annotations

import math

from ..flow import Row, log10
from ..records.remedies import Remedy
from . import proposals, schemes
from .network import Network
from .rule import Case
from .scale import USUAL
from .wording import num, percent

_MIDDLE = sum(map(log10, USUAL)) / 2.0
"""Log10 of the rms from which the scale of data is counted, in decades up and down."""
_LARGE_OUTPUTS = 3.0
"""Rms of the outputs before the loss from which they, and no regularizer, are what makes a first loss large."""


def non_finite(network: Network) -> list[Case]:
    """NaN or infinity: in the data, in a weight, or in the first layer that produced it. One is too many."""
    for row in network.rows:
        if row.info.role in ("input", "target") and row.stats.activation_nonfinite > 0.0:
            return [_non_finite(row, row.stats.activation_nonfinite, "data")]
    for row in network.rows:
        if row.stats.weight_nonfinite > 0.0:
            return [_non_finite(row, row.stats.weight_nonfinite, "weight")]
    for i in network.order:
        row = network.rows[i]
        before, after = row.stats.preactivation_nonfinite, row.stats.activation_nonfinite
        if row.info.role == "layer" and (before > 0.0 or after > 0.0):
            share = max(x for x in (before, after) if not math.isnan(x))
            arriving = [network.rows[p].stats.activation_max for p in network.parents[i]]
            largest = max((x for x in arriving if math.isfinite(x)), default=math.nan)
            # An activation hides it: a fused ReLU turns NaN into 0, and the loss stays finite.
            return [_non_finite(row, share, "forward", hidden=bool(before > 0.0) and not after > 0.0, largest=largest)]
    for row in reversed([network.rows[i] for i in network.order]):
        share = max((x for x in (row.stats.backward_nonfinite, row.stats.gradient_nonfinite) if x > 0.0), default=0.0)
        if share > 0.0:
            return [_non_finite(row, share, "backward")]
    if network.snapshot.statistics and math.isinf(network.snapshot.loss):
        return [_non_finite(None, 1.0, "loss")]
    return []


def _non_finite(
    row: Row | None, share: float, origin: str, *, hidden: bool = False, largest: float | None = None
) -> Case:
    return Case(
        amount=share,
        layer=row.path if row is not None else None,
        change=[row] if row is not None and row.info.role in ("layer", "weight") else [],
        severity="bad",
        facts={"origin": origin, "role": row.info.role if row is not None else "", "hidden_by_activation": hidden}
        | ({} if largest is None else {"largest_input": largest}),
    )


def not_finite(case: Case) -> str:
    """The words of `non_finite`."""
    share, where, facts = _share(case.amount), case.layer, case.facts
    if facts["origin"] == "data":
        what = "targets" if facts["role"] == "target" else "data"
        return f"the {what} {where} contain NaN or infinity: {share} of the values"
    if facts["origin"] == "weight":
        return f"{share} of the weights of {where} are NaN or infinite"
    if facts["origin"] == "forward":
        return (
            f"NaN or infinity first appears in {where}: {share} of its values, "
            f"although its inputs are finite (at most {num(facts['largest_input'])})"
        )
    if facts["origin"] == "backward":
        return f"the gradient is NaN or infinite at {where} ({share} of it): this is the last such layer"
    return "the loss is infinite"


def finite(network: Network, case: Case) -> Remedy | None:
    """Data without NaN, or weights that are drawn again; what a computation made has another cause."""
    if case.facts["origin"] == "data":
        return proposals.without_non_finite(case.layer or "")
    return schemes.for_kernels(network, case.change, bias=True) if case.facts["origin"] == "weight" else None


def _share(fraction: float) -> str:
    return percent(fraction) if fraction >= 0.01 else f"{num(100 * fraction)} %"


def input_scale(network: Network) -> list[Case]:
    """The data reaches the first trained layer unscaled, or far too small; the amount is in decades from `USUAL`.

    What counts is what arrives behind the model's own rescaling, and not at all where a normalisation follows at once.
    """
    found: list[Case] = []
    for row in network.firsts:
        if network.normalised_after(row):
            continue
        for p in network.parents[row.index]:
            source = network.rows[p]
            rms, mean, std, largest, prepared = _arriving(row, source)
            if not prepared and (source.info.lookup or source.normalises):
                continue
            # A normalisation after the kernel brings small data nearer to unit scale, and the next one nearer still.
            if math.isfinite(rms) and rms > 0.0 and not (rms < USUAL[0] and network.feeds(row, "batch")):
                found.append(_scale(row, source, rms, mean, std, largest, prepared))
    return sorted(found, key=lambda case: -case.amount)[:1]


def _scale(row: Row, source: Row, rms: float, mean: float, std: float, largest: float, prepared: bool) -> Case:
    sign = 1.0 if log10(rms) > _MIDDLE else -1.0
    return Case(
        amount=abs(log10(rms) - _MIDDLE),
        layer=row.path,
        observed=rms,
        limit=lambda decades: math.pow(10.0, _MIDDLE + sign * decades),
        affected=[source.path, row.path],
        change=[row],
        facts={
            "source": source.path,
            "mean": mean,
            "deviation": std,
            "largest": largest,
            "prepared": prepared or source.info.role != "input",
            "shape": list(source.info.shape),
        },
    )


def unscaled(case: Case) -> str:
    """The words of `input_scale`."""
    largest = num(case.facts["largest"])
    return f"the data reaches {case.layer} with an rms of {num(case.observed)} (largest {largest}); about 1 is usual"


def rescaled(network: Network, case: Case) -> Remedy | None:
    """A layer in front of the model; none for what a person's own code has made of the data."""
    del network
    facts = case.facts
    low = 0.0 if facts["mean"] > 0.0 and facts["mean"] >= 0.3 * case.observed else -facts["largest"]
    if facts["prepared"]:
        return None
    return proposals.rescaled(facts["source"], facts["deviation"], low, facts["largest"], facts["shape"])


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


def target_scale(network: Network) -> list[Case]:
    """Regression targets of large scale; the numbers of classes have none."""
    if not _numbers(network):
        return []
    targets = [row for row in network.rows if row.info.role == "target" and row.stats.activation_rms > 0.0]
    return [
        Case(
            amount=row.stats.activation_rms,
            layer=row.path,
            affected=[row.path, *(head.path for head in network.heads)],
            facts={
                "mean": row.stats.activation_mean,
                "deviation": row.stats.activation_std,
                "largest": row.stats.activation_max,
            },
        )
        for row in sorted(targets, key=lambda row: -row.stats.activation_rms)[:1]
    ]


def unscaled_targets(case: Case) -> str:
    """The words of `target_scale`."""
    return (
        f"the targets {case.layer} of this batch have an rms of {num(case.amount)}, "
        "but the outputs of a new model are about 1"
    )


def standardised(network: Network, case: Case) -> Remedy | None:
    """Targets at unit scale."""
    return proposals.standardised(network, case.facts["deviation"])


def initial_loss(network: Network) -> list[Case]:
    """The first loss is far above that of an uninformed model: the start is over-confident.

    Regularizers are part of the loss that Keras reports, so that the outputs must be large too.
    """
    loss, baseline = network.snapshot.loss, network.snapshot.baseline_loss
    if baseline is None or not baseline > 0.0 or not math.isfinite(loss):
        return []
    sure = [(row.output_rms, row) for row in network.heads if math.isfinite(row.output_rms)]
    if not sure:
        return []
    rms, head = max(sure, key=lambda pair: pair[0])
    targets = [row.stats for row in network.rows if row.info.role == "target"]
    means = [s.activation_mean for s in targets if math.isfinite(s.activation_mean)]
    mean = max(means, key=abs, default=0.0)
    deviation = max((s.activation_std for s in targets if math.isfinite(s.activation_std)), default=0.0)
    far = _numbers(network) and abs(mean) > 3.0 * deviation > 0.0 and abs(mean) > rms
    if rms < _LARGE_OUTPUTS and not far:
        return []
    return [
        Case(
            amount=loss / baseline,
            layer=head.path,
            change=[head],
            facts={"loss": loss, "baseline_loss": baseline, "output_rms": rms, "target_mean": mean if far else None},
        )
    ]


def overconfident(case: Case) -> str:
    """The words of `initial_loss`."""
    facts = case.facts
    why = f"the outputs of {case.layer} before the loss have an rms of {num(facts['output_rms'])}"
    if facts["target_mean"] is not None:
        why = f"the targets of this batch lie around {num(facts['target_mean'])}, the outputs around 0"
    return (
        f"the first loss is {num(facts['loss'])}, {num(case.amount)} times that of a model that knows nothing "
        f"({num(facts['baseline_loss'])}): {why}"
    )


def smaller_outputs(network: Network, case: Case) -> Remedy | None:
    """A bias at the mean of the targets where they lie far from 0, else a new head."""
    if case.facts["target_mean"] is not None:
        return proposals.centered(network)
    return schemes.for_kernels(network, case.change, bias=True)


def _numbers(network: Network) -> bool:
    """Whether the loss takes the targets for numbers: regression."""
    return network.snapshot.loss_kind in ("squares", "distances")
