"""Rules about the units of a layer: are they different from each other, alive, and not saturated."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..flow import Row
from ..records import Finding, Severity
from ..records.remedies import WholeModel
from . import proposals
from .network import Network
from .thresholds import Thresholds
from .wording import finding, num, percent, several


def symmetric_units(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Units of a layer that start the same: with the same gradient they never become different.

    Equal weights alone are no fault: a kernel that starts at zero and gets a different gradient for each unit (a head,
    the end of a residual branch, a matrix that scales) is random after one step. Equal and not zero is unusual enough
    for a warning.
    """
    heads = {row.index for row in network.heads}
    bad: list[Row] = []
    odd: list[Row] = []
    for row in network.rows:
        stats = row.stats
        if row.info.role not in ("layer", "weight") or len(row.info.weight_shape) < 2 or not row.info.trainable:
            continue
        if row.info.channelwise or not stats.weight_identical >= thresholds.identical:
            continue
        if stats.gradient_identical >= thresholds.identical and not _blocked(network, row):
            bad.append(row)
        elif (
            row.index not in heads
            and row.info.role == "layer"
            and (stats.weight_rms > 0.0 or not (stats.gradient_rms > 0.0 or network.bypassed(row)))
        ):
            odd.append(row)
    if not bad and not odd:
        return []
    found = bad or odd
    severity: Severity = "bad" if bad else "warning"
    if bad and not any(row.index not in heads for row in bad):
        # A head from zeros whose gradient is the same for all units gets copies as its input: the fault is before it.
        severity = "warning"
    group = proposals.alike(network, [*bad, *odd])
    value = found[0].stats.weight_rms
    start = "only zero weights" if value == 0.0 else f"the same weights (rms {num(value)})"
    end = (
        "and get the same gradient, so that they stay copies of each other"
        if bad
        else "so that they all give the same output"
    )
    share = found[0].stats.weight_identical
    return [
        finding(
            "symmetric-units",
            severity,
            found[0].path,
            f"{percent(share)} of the units of {several([row.path for row in found])} start with {start} {end}",
            observed=share,
            expected=0.0,
            threshold=thresholds.identical,
            unit="fraction of units that equal another one",
            layers=[network.owner(row).path for row in group],
            affected=[row.path for row in found],
            weight_rms=value,
            gradient_identical=found[0].stats.gradient_identical,
            remedy=proposals.for_kernels(network, group),
        )
    ]


def _blocked(network: Network, row: Row) -> bool:
    """Whether a zero kernel gets no gradient because a zero head or a zero gain after it passes none.

    Such a start is healthy at the next step: a residual branch that ends in zeros, before a head of zeros.
    """
    if row.stats.weight_rms > 0.0 or row.stats.gradient_rms > 0.0:
        return False
    if network.before and network.snapshot.step >= network.before[0].step + 2:
        return False  # by now the other zero has changed
    owner = network.owner(row)
    return network.bypassed(owner) and math.isfinite(owner.stats.activation_rms)


def dead_units(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Units that are zero for every sample: no gradient passes them."""
    rows = [
        row
        for row in network.layers
        if row.stats.activation_dead >= thresholds.dead_warning and _can_die(row) and _fed(network, row)
    ]
    if not rows:
        return []
    worst = max(rows, key=lambda row: (row.stats.activation_dead, -row.index))
    share = worst.stats.activation_dead
    severity: Severity = "bad" if share >= thresholds.dead_bad and not network.bypassed(worst) else "warning"
    kernels = [kernel for row in rows for kernel in _kernels_of(network, row)]
    group = proposals.alike(network, kernels)
    where = several([worst.path, *(row.path for row in rows if row is not worst)])
    below = worst.stats.preactivation_mean < -2.0 * worst.stats.preactivation_std
    why = f": the mean of their pre-activations is {num(worst.stats.preactivation_mean)}" if below else ""
    return [
        finding(
            "dead-units",
            severity,
            worst.path,
            f"{percent(share)} of the units of {where} give zero for every sample{why}",
            observed=share,
            expected=0.0,
            threshold=thresholds.dead_bad if severity == "bad" else thresholds.dead_warning,
            unit="fraction of units",
            layers=[row.path for row in group],
            affected=[row.path for row in rows],
            preactivation_mean=worst.stats.preactivation_mean,
            preactivation_std=worst.stats.preactivation_std,
            remedy=proposals.for_signal(network, group, bias=True),
        )
    ]


def _can_die(row: Row) -> bool:
    """Whether the layer's activation is zero, with no slope, over a whole range: ReLU and what is cut like it."""
    name = (row.info.activation or "").split("(")[0]
    return name.startswith(("relu", "hard_", "threshold", "sparse_")) or name.endswith("_shrink")


def _fed(network: Network, row: Row) -> bool:
    """Whether anything but zero arrives at a row; behind a dead layer everything is dead, and one is enough to name."""
    above = [network.rows[p].stats.activation_rms for p in network.parents[row.index]]
    return not above or not all(rms == 0.0 for rms in above)


def _kernels_of(network: Network, row: Row) -> list[Row]:
    """The kernels whose output a row is: its own, or the last one before it; of attention weights, query and key."""
    if row.info.role == "attention":
        stem = row.path.rpartition("/")[0]
        return [layer for layer in network.kernels if layer.path in (f"{stem}/query", f"{stem}/key")]
    owner = network.owner(row)
    return [owner] if owner.has_kernel else list(network.through(owner))[-1:]


def saturated_units(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Outputs, gates and attention weights on the flat ends of their function: almost no gradient passes."""
    heads = {row.index for row in network.heads}
    found: list[tuple[float, Row, Severity, float]] = []
    harm = functools.cache(lambda: _harm(network, thresholds))
    for row in network.rows:
        share, entropy = row.stats.activation_saturated, row.stats.attention_entropy
        flat_head = row.info.role == "layer" and (
            row.index in heads or not any(network.rows[c].info.role == "layer" for c in network.children[row.index])
        )
        if entropy <= thresholds.entropy_warning and not flat_head:
            severity: Severity = "bad" if entropy <= thresholds.entropy_bad else "warning"
            limit = thresholds.entropy_bad if severity == "bad" else thresholds.entropy_warning
            found.append((1.0 - entropy, row, severity, limit))
        elif (row.info.activation or "").startswith("relu"):
            continue  # one half of its pre-activations belongs on its flat end; dead-units says when all do
        elif share >= thresholds.saturated_warning and row.info.role in ("layer", "gates", "attention"):
            # Whether a confident output is also wrong is for the loss to say.
            bypassed = network.bypassed(network.owner(row))
            limit = thresholds.saturated_branch_bad if bypassed else thresholds.saturated_bad
            # The gradient through time within a recurrent layer is not measured: there the share alone counts.
            if row.info.role == "layer" and row.info.gates != 1:
                limit = min(harm().torn_from, limit if harm().still else math.inf)
            severity = "bad" if share >= limit and not flat_head else "warning"
            found.append((share, row, severity, limit if severity == "bad" else thresholds.saturated_warning))
    if not found:
        return []
    share, worst, _, threshold = max(found, key=lambda item: (item[2] == "bad", item[0], -item[1].index))
    severity = "bad" if any(s == "bad" for _, _, s, _ in found) else "warning"
    rows = [worst, *(row for _, row, _, _ in found if row is not worst)]
    kernels = [kernel for row in rows for kernel in _kernels_of(network, row)]
    group = proposals.alike(network, dict.fromkeys(kernels))
    where = several([row.path for row in rows])
    if worst.stats.attention_entropy <= thresholds.entropy_warning:
        message = (
            f"each query of {where} attends to little more than one key: the entropy of its attention weights is "
            f"{percent(worst.stats.attention_entropy)} of that of uniform weights"
        )
        observed, expected, unit = worst.stats.attention_entropy, 1.0, "entropy over log(keys)"
    else:
        what = "gate values" if worst.info.role == "gates" else "outputs"
        message = (
            f"{percent(share)} of the {what} of {where} are saturated: "
            "the function is flat there, and almost no gradient passes"
        )
        observed, expected, unit = share, 0.0, "fraction of pre-activations"
    return [
        finding(
            "saturated-units",
            severity,
            network.owner(worst).path,
            message,
            observed=observed,
            expected=expected,
            threshold=threshold,
            unit=unit,
            layers=[row.path for row in group],
            affected=[row.path for row in rows],
            preactivation_rms=worst.stats.preactivation_rms,
            remedy=proposals.for_kernels(network, group, bias=True) or WholeModel(),
        )
    ]


@dataclass(frozen=True)
class _Harm:
    """What saturated units do to a network: they stop its gradient, or the few others make it very uneven."""

    still: bool
    torn_from: float
    """The saturated share from which the gradient, which also rises on its way back, is too uneven to learn from."""


def _harm(network: Network, thresholds: Thresholds) -> _Harm:
    still = network.partly_stands_still(network.hidden, thresholds) is not False
    growth = max((decades for decades, _ in network.gradient_levels().values()), default=0.0)
    branching = len(network.trunk) < len(network.hidden)
    torn = thresholds.torn_branch_bad if branching else thresholds.torn_bad
    return _Harm(still, torn / max(growth, 1e-9))


_Twin = tuple[Row, Row, bool]
"""A row, an earlier one that it repeats, and whether both get the same gradient."""


def duplicate_kernels(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Different layers that start with the same numbers: an integer seed that is used twice.

    Where their gradients are the same too, as in parallel branches that are added, they stay copies: that is bad.
    Copies at the same place of several blocks are one finding; others are a finding each.
    """
    del thresholds  # a copy is a copy: there is nothing to tune
    index = {row.path: row for row in network.rows}
    twins: list[_Twin] = []
    for row in network.rows:
        first = index.get(row.info.duplicate_of or "")
        if first is None or not row.info.trainable or not row.stats.weight_rms > 0.0:
            continue
        if row.stats.weight_identical >= 0.5:
            continue  # a constant equals every other constant: symmetric-units names it
        pairs = (
            (row.stats.gradient_rms, first.stats.gradient_rms),
            (row.stats.gradient_max, first.stats.gradient_max),
        )
        same = all(a > 0.0 and math.isclose(a, b, rel_tol=1e-4) for a, b in pairs)
        twins.append((row, first, same))
    groups: dict[str, list[_Twin]] = {}
    for twin in twins:
        groups.setdefault(_original(index, twin[1]).path, []).append(twin)
    alike: dict[tuple[str, ...], list[_Twin]] = {}
    for original, group in groups.items():
        names = (original, *(row.path for row, _, _ in group))
        alike.setdefault(tuple(name.rpartition("/")[2] for name in names), []).extend(group)
    return [_repeated(network, group) for group in alike.values()]


def _original(index: Mapping[str, Row], row: Row) -> Row:
    """The first of the rows that a row repeats, itself where it repeats none."""
    seen = {row.path}
    while (first := index.get(row.info.duplicate_of or "")) is not None and first.path not in seen:
        seen.add(first.path)
        row = first
    return row


def _repeated(network: Network, twins: list[_Twin]) -> Finding:
    row, first, same = max(twins, key=lambda item: item[2])
    end = (
        "and get the same gradient, so that one adds nothing to the other"
        if same
        else "so that the two are not independent"
    )
    end += "; layers that share a seed, or an initializer with a seed, start with the same numbers"
    copies = [r.path for r, _, _ in twins]
    originals = list(dict.fromkeys([first.path, *(f.path for _, f, _ in twins)]))
    return finding(
        "duplicate-kernels",
        "bad" if same else "warning",
        network.owner(row).path,
        f"the weights of {several(copies)} start with the same numbers as those of {several(originals)}, {end}",
        observed=len(twins),
        expected=0,
        threshold=1,
        unit="kernels that repeat another one",
        layers=[network.owner(r).path for r, _, _ in twins],
        affected=[path for r, f, _ in twins for path in (r.path, f.path)],
        original=first.path,
        remedy=proposals.for_kernels(network, proposals.alike(network, [r for r, _, _ in twins])),
    )
