"""Rules about the units of a layer: are they different from each other, alive, and not saturated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from ..flow import Row
from ..records.remedies import Remedy, WholeModel
from . import schemes
from .network import Network
from .rule import Case
from .wording import num, percent, several


def symmetric_units(network: Network) -> list[Case]:
    """Units of a layer that start the same: with the same gradient they never become different.

    Equal weights alone are no fault: a kernel that starts at zero and gets a different gradient for each unit (a head,
    the end of a residual branch, a matrix that scales) is random after one step. Equal and not zero is unusual enough
    for a warning. The amount is the share of the units that equal another one.
    """
    heads = {row.index for row in network.heads}
    copies: list[Row] = []
    odd: list[Row] = []
    for row in network.rows:
        stats = row.stats
        if row.info.role not in ("layer", "weight") or len(row.info.weight_shape) < 2 or not row.info.trainable:
            continue
        if row.info.channelwise or not stats.weight_identical >= _COPIES:
            continue
        if stats.gradient_identical >= _COPIES and not _blocked(network, row):
            copies.append(row)
        elif (
            row.index not in heads
            and row.info.role == "layer"
            and (stats.weight_rms > 0.0 or not (stats.gradient_rms > 0.0 or network.bypassed(row)))
        ):
            odd.append(row)
    found = copies or odd
    if not found:
        return []
    # A head from zeros whose gradient is the same for all units gets copies as its input: the fault is before it.
    certain = any(row.index not in heads for row in copies)
    first = found[0].stats
    return [
        Case(
            amount=first.weight_identical,
            layer=found[0].path,
            affected=[row.path for row in found],
            change=[network.owner(row) for row in schemes.alike(network, [*copies, *odd])],
            severity="bad" if certain else "warning",
            facts={
                "weight_rms": first.weight_rms,
                "gradient_identical": first.gradient_identical,
                "stay_copies": bool(copies),
            },
        )
    ]


_COPIES = 0.9
"""Share of the units of a layer that must be copies of each other. A random start has none; one half copied on purpose
(ICNR, widened networks) must not count."""


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


def copies(case: Case) -> str:
    """The words of `symmetric_units`."""
    value = case.facts["weight_rms"]
    start = "only zero weights" if value == 0.0 else f"the same weights (rms {num(value)})"
    end = "so that they all give the same output"
    if case.facts["stay_copies"]:
        end = "and get the same gradient, so that they stay copies of each other"
    return f"{percent(case.amount)} of the units of {several(case.affected)} start with {start} {end}"


def new_kernels(network: Network, case: Case) -> Remedy | None:
    """The recommended schemes for the kernels at fault."""
    return schemes.for_kernels(network, case.change)


def new_kernels_and_biases(network: Network, case: Case) -> Remedy | None:
    """The same, and biases of zero; a new start of the whole model where there are no kernels to name."""
    return schemes.for_kernels(network, case.change, bias=True) or WholeModel()


def dead_units(network: Network) -> list[Case]:
    """Units that are zero for every sample: no gradient passes them. The amount is their share of a layer."""
    known = [r for r in network.layers if r.stats.activation_dead >= _FEW and _can_die(r) and _fed(network, r)]
    if not known:
        return []
    worst = max(known, key=lambda row: (row.stats.activation_dead, -row.index))
    stats = worst.stats
    rows = [row for row in known if row.stats.activation_dead >= _AS_MUCH * stats.activation_dead]
    return [
        Case(
            amount=stats.activation_dead,
            layer=worst.path,
            affected=[worst.path, *(row.path for row in rows if row is not worst)],
            change=_changed(network, rows),
            severity="warning" if network.bypassed(worst) else None,
            facts={
                "preactivation_mean": stats.preactivation_mean,
                "preactivation_std": stats.preactivation_std,
                "structural": stats.activation_dead >= 1.0,  # for good: nothing passes the layer
            },
        )
    ]


_FEW = 0.1
"""Share of units, of values or of the entropy below which nothing else is measured."""
_AS_MUCH = 0.5
"""Share of what the worst row has, from which other rows are named beside it."""


def _can_die(row: Row) -> bool:
    """Whether the layer's activation is zero, with no slope, over a whole range: ReLU and what is cut like it."""
    name = (row.info.activation or "").split("(")[0]
    return name.startswith(("relu", "hard_", "threshold", "sparse_")) or name.endswith("_shrink")


def _fed(network: Network, row: Row) -> bool:
    """Whether anything but zero arrives at a row; behind a dead layer everything is dead, and one is enough to name."""
    above = [network.rows[p].stats.activation_rms for p in network.parents[row.index]]
    return not above or not all(rms == 0.0 for rms in above)


def dead(case: Case) -> str:
    """The words of `dead_units`."""
    mean, deviation = case.facts["preactivation_mean"], case.facts["preactivation_std"]
    why = f": the mean of their pre-activations is {num(mean)}" if mean < -2.0 * deviation else ""
    return f"{percent(case.amount)} of the units of {several(case.affected)} give zero for every sample{why}"


def _changed(network: Network, rows: Iterable[Row]) -> list[Row]:
    """The kernels that one remedy for these rows changes."""
    kernels = [kernel for row in rows for kernel in _kernels_of(network, row)]
    return schemes.alike(network, dict.fromkeys(kernels))


def _kernels_of(network: Network, row: Row) -> list[Row]:
    """The kernels whose output a row is: its own, or the last one before it; of attention weights, query and key."""
    if row.info.role == "attention":
        stem = row.path.rpartition("/")[0]
        return [layer for layer in network.kernels if layer.path in (f"{stem}/query", f"{stem}/key")]
    owner = network.owner(row)
    return [owner] if owner.has_kernel else list(network.through(owner))[-1:]


def saturated_units(network: Network) -> list[Case]:
    """Outputs and gates on the flat ends of their function: almost no gradient passes. The amount is their share."""
    known = [
        (row.stats.activation_saturated, row)
        for row in network.rows
        if row.stats.activation_saturated >= _FEW
        and row.info.role in ("layer", "gates")
        # One half of the pre-activations of a ReLU belongs on its flat end; dead-units says when all do.
        and not (row.info.activation or "").startswith("relu")
        and (math.isnan(row.stats.attention_entropy) or _gives_answers(network, row))
    ]
    return _saturated(network, known)


def attention_entropy(network: Network) -> list[Case]:
    """Attention that looks at little more than one key a query: its softmax is saturated. The amount is its entropy."""
    known = [
        (1.0 - row.stats.attention_entropy, row)
        for row in network.rows
        if row.stats.attention_entropy <= 1.0 - _FEW and not _gives_answers(network, row)
    ]
    entropy = {row.path: row.stats.attention_entropy for _, row in known}
    return [
        dataclasses.replace(case, amount=entropy[case.affected[0]], harmful=1.0 - (case.harmful or 0.0))
        for case in _saturated(network, known)
    ]


def _gives_answers(network: Network, row: Row) -> bool:
    """Whether a row is an output of the model: whether a confident answer is also wrong is for the loss to say."""
    flows = any(network.rows[c].info.role == "layer" for c in network.children[row.index])
    return row.info.role == "layer" and (row in network.heads or not flows)


def _saturated(network: Network, known: list[tuple[float, Row]]) -> list[Case]:
    """One case for all rows; a layer that a skip connection bypasses, or that gives answers, is not bad by itself."""
    if not known:
        return []
    amount, worst = max(known, key=lambda item: (item[0], -item[1].index))
    found = [(share, row) for share, row in known if share >= _AS_MUCH * amount]
    mild = [row for _, row in found if network.bypassed(network.owner(row)) or _gives_answers(network, row)]
    rows = [worst, *(row for _, row in found if row is not worst)]
    return [
        Case(
            amount=amount,
            harmful=max((share for share, row in found if row not in mild), default=0.0),
            layer=network.owner(worst).path,
            affected=[row.path for row in rows],
            change=_changed(network, rows),
            facts={
                "preactivation_rms": worst.stats.preactivation_rms,
                "attention_logit_max": worst.stats.attention_logit_max,
                "what": worst.info.role,
            },
        )
    ]


def saturated(case: Case) -> str:
    """The words of `saturated_units`."""
    what = "gate values" if case.facts["what"] == "gates" else "outputs"
    return (
        f"{percent(case.amount)} of the {what} of {several(case.affected)} are saturated: "
        "the function is flat there, and almost no gradient passes"
    )


def sharp(case: Case) -> str:
    """The words of `attention_entropy`."""
    largest = case.facts["attention_logit_max"]
    logit = f", and the largest logit is {num(largest)}" if math.isfinite(largest) else ""
    return (
        f"each query of {several(case.affected)} attends to little more than one key: the entropy of its attention "
        f"weights is {percent(case.amount)} of that of uniform weights{logit}"
    )


_Twin = tuple[Row, Row, bool]
"""A row, an earlier one that it repeats, and whether both get the same gradient."""


def duplicate_kernels(network: Network) -> list[Case]:
    """Different layers that start with the same numbers: an integer seed that is used twice.

    Where their gradients are the same too, as in parallel branches that are added, they stay copies: that is bad.
    A copy is a copy: there is nothing to tune.
    Copies at the same place of several blocks are one finding; others are a finding each.
    """
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


def _repeated(network: Network, twins: list[_Twin]) -> Case:
    row, first, same = max(twins, key=lambda item: item[2])
    repeats = schemes.alike(network, [r for r, _, _ in twins])
    return Case(
        amount=len(twins),
        layer=network.owner(row).path,
        affected=[path for r, f, _ in twins for path in (r.path, f.path)],
        change=[network.owner(r) for r in repeats],
        severity="bad" if same else "warning",
        facts={
            "original": first.path,
            "copies": [r.path for r, _, _ in twins],
            "originals": list(dict.fromkeys([first.path, *(f.path for _, f, _ in twins)])),
            "same_gradient": same,
        },
    )


def repeated(case: Case) -> str:
    """The words of `duplicate_kernels`."""
    end = "so that the two are not independent"
    if case.facts["same_gradient"]:
        end = "and get the same gradient, so that one adds nothing to the other"
    return (
        f"the weights of {several(case.facts['copies'])} start with the same numbers as those of "
        f"{several(case.facts['originals'])}, {end}; layers that share a seed, or an initializer with a seed, start "
        "with the same numbers"
    )
