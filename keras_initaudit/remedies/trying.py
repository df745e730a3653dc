"""What a trial tries: the remedies of all findings together, then fewer of them; and what it says of each remedy."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from ..diagnosis.judging import is_structural
from ..layers.inside import with_layers_below
from ..observe.engines import FirstCall, NoTrialError
from ..progress import Progress
from ..records import Curve, Finding, Trial
from ..records.remedies import LearningRate, PlainNormalization, Reinitialize, Remedy, SetBias, WholeModel
from . import clock
from .initialization import initialize
from .starts import TRIED, Start, applied, can_be_applied, distinct, parts
from .trial import Runs, attempt

_OF_WEIGHTS = (Reinitialize, PlainNormalization, SetBias)
"""What a new start of the whole model makes needless."""
_RATES = 5
"""Learning rates that are tried, each a tenth of the one before; ten times it, where the one of the training is too
small."""


def tried(
    findings: Sequence[Finding],
    probe: Any,
    call: FirstCall,
    *,
    fresh: bool,
    step: int = 0,
    later: bool = False,
    new_starts: Sequence[Remedy] = (WholeModel(),),
    most: int | None = None,
    progress: Progress | None = None,
) -> tuple[Trial | None, tuple[Finding, ...]]:
    """Tries a start as it is and with the remedies of what was found in it; nothing is changed.

    Args:
        findings: Worst first.
        probe: A `Probe` of the model, after a `measure`.
        call: The batch to update the model on, and what `fit` does it with; that is None without a `fit`.
        fresh: Whether no update was made before the first audit. The model may be started anew then, unless some of its
            layers are frozen: their weights are likely to be loaded.
        step: Updates made so far.
        later: Whether it is not the first audit: then a learning rate is tried, from a new start.
        new_starts: What takes the place of the remedies of weights, one after the other, until a start learns.
        most: The most updates that one run may make; see `attempt`.
        progress: See `Runs`.

    Returns:
        The trial, None where there is nothing to try; and as many findings in the same order: those whose remedy was
        part of the better start have what came of it in `proof`, and what does not help is no remedy any more.
    """
    model, result = probe.model, tuple(findings)
    rates = [f for f in findings if isinstance(f.action, LearningRate)]
    if not (rates if later else findings) or not model.trainable_variables:
        return None, result
    fresh = fresh and not any(layer.weights and not layer.trainable for layer in with_layers_below(model))

    def experiment(runs: Runs) -> Trial:
        nonlocal result
        result = tuple(_without_unusable(result, (LearningRate,) if later else TRIED, runs, model))
        trial, found = _rate(result, runs, model, fresh) if later else _start(result, runs, model, fresh, new_starts)
        result = tuple(found)
        return trial

    trial = attempt(
        probe, call.batch, experiment, train=call.train, iterator=call.iterator, most=most, progress=progress
    )
    return dataclasses.replace(trial, step=step), result


def _without_unusable(
    findings: Sequence[Finding], kinds: tuple[type[Remedy], ...], runs: Runs, model: Any
) -> list[Finding]:
    """The findings without remedies of these kinds that cannot be applied."""
    with runs.kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            f.with_remedy(None)
            if isinstance(f.action, kinds) and not can_be_applied(f.action, model, runs.samples)
            else f
            for f in findings
        ]


def _start(
    findings: Sequence[Finding], runs: Runs, model: Any, fresh: bool, new_starts: Sequence[Remedy]
) -> tuple[Trial, list[Finding]]:
    """At the first audit: the remedies of all findings; where they do not do, a new start of the whole model."""
    proposed = distinct(f.action for f in findings if isinstance(f.action, TRIED))
    if not proposed and not fresh:
        raise NoTrialError("no remedy can be applied to the built model, and its weights are not those of a new start")

    def curve(start: Start, limit: int) -> Curve:
        return runs.curve(lambda: applied(start, model, runs.samples), limit)

    start, anew = proposed or (WholeModel(),), None
    remedied = at_this_rate = curve(start, clock.REMEDIED_MOST)
    for new in new_starts if fresh else ():
        other = distinct((*(_stands_for(remedy, new) for remedy in proposed), new))
        limit = _affordable(runs)
        if remedied.needed is not None or not limit:
            break
        if other == start:
            continue
        again = curve(other, limit)
        if again.needed is not None or clock.farthest(again) > clock.farthest(remedied):
            start, remedied, anew = other, again, new
            if not _changes_rate((new,)):
                at_this_rate = again
    start, remedied, left_out = _without_needless(start, remedied, curve, runs)
    # A healthy start learns later at a smaller rate, too: where only another rate cures, that proves nothing.
    compared = at_this_rate if anew is not None and _changes_rate((anew,)) else remedied
    as_is = runs.curve(None, min(clock.as_is_limit(compared), _left(runs)))
    remedies = [_stands_for(f.action, anew) for f in findings]
    keys = tuple(f.key for f, remedy in zip(findings, remedies, strict=True) if remedy in left_out)
    trial = Trial(clock.judge(as_is, compared), as_is, remedied, runs.most, left_out=keys)
    return trial, _with_proof(findings, remedies, start, trial, anew or WholeModel())


def _changes_rate(start: Start) -> bool:
    return any(isinstance(remedy, LearningRate) for remedy in parts(start))


def _without_needless(
    start: Start, remedied: Curve, curve: Callable[[Start, int], Curve], runs: Runs
) -> tuple[Start, Curve, Start]:
    """What is left of a start that arrives, its curve, and what it learns without; those of minor findings go first."""
    left_out: list[Remedy] = []
    if remedied.needed is not None:
        slow = clock.much_slower_from(remedied.needed)
        for remedy in reversed(start):
            rest = tuple(other for other in start if other != remedy)
            # The start as it is may make three times as many updates as this one, after it.
            if not rest or _left(runs) < slow + max(clock.AS_IS_LEAST, clock.TIMES * slow):
                break
            without = curve(rest, slow - 1)
            if without.needed is not None:
                start, remedied = rest, without
                left_out.append(remedy)
    return start, remedied, tuple(left_out)


def _with_proof(
    findings: Sequence[Finding],
    remedies: Sequence[Remedy | None],
    start: Start,
    trial: Trial,
    anew: Remedy = WholeModel(),  # noqa: B008  # frozen
) -> list[Finding]:
    """The findings with what the trial says of their remedies; `anew` is for those that have none."""
    assert trial.as_is is not None
    assert trial.remedied is not None
    if not clock.helps(trial.as_is, trial.remedied):
        harmful = clock.harmful(trial.as_is, trial.remedied)
        sold = [r not in start or (is_structural(f) and not harmful) for f, r in zip(findings, remedies, strict=True)]
        return [f if keep else f.with_remedy(None) for f, keep in zip(findings, sold, strict=True)]
    if anew in start and anew not in remedies and trial.outcome in ("bad", "warning"):
        remedies = [anew if remedy is None else remedy for remedy in remedies]
    # Of a start of which the person is told a part only, it proves nothing.
    proof = clock.sentence(trial) if all(remedy in remedies for remedy in start) else None
    return [f.with_remedy(r, proof) if r in start else f for f, r in zip(findings, remedies, strict=True)]


def _rate(findings: Sequence[Finding], runs: Runs, model: Any, fresh: bool) -> tuple[Trial, list[Finding]]:
    """At a later audit: another learning rate, from a new start, for by now the weights may be beyond repair."""
    worst = next((f for f in findings if isinstance(f.action, LearningRate)), None)
    if worst is None:
        raise NoTrialError("the learning rate cannot be set")
    assert isinstance(worst.action, LearningRate)

    def begun(*remedies: Remedy) -> Any:
        if fresh:
            for variable in model.trainable_variables:
                if variable.path.rpartition("/")[2] == "bias":
                    variable.assign(ops.zeros_like(variable))
            initialize(model, seed=0)
        return applied(remedies, model, runs.samples)

    own = worst.evidence.get("learning_rate") or worst.action.value
    factor = 10.0 if own < worst.action.value else 0.1
    found: list[tuple[LearningRate, Curve]] = []
    for power in range(_RATES):
        limit = clock.REMEDIED_MOST if not found else _affordable(runs)
        value = worst.action.value * factor**power
        if not limit or (found and factor > 1.0 < value):  # no optimizer is given a rate above 1
            break
        rate = LearningRate(float(f"{value:.1g}"))
        found.append((rate, runs.curve(functools.partial(begun, rate), limit)))
        if found[-1][1].needed is not None:
            break
    rate, remedied = max(found, key=lambda one: (one[1].needed is not None, clock.farthest(one[1])))
    as_is = runs.curve(begun, min(clock.as_is_limit(remedied), _left(runs)))
    trial = Trial(clock.judge(as_is, remedied), as_is, remedied, runs.most)
    remedies = [rate if isinstance(f.action, LearningRate) else None for f in findings]
    return trial, _with_proof(findings, remedies, (rate,), trial)


def _stands_for(remedy: Remedy | None, anew: Remedy | None) -> Remedy | None:
    """What takes the place of a remedy where the whole model is started again."""
    return anew if anew is not None and isinstance(remedy, _OF_WEIGHTS) else remedy


def _left(runs: Runs) -> int:
    """Updates that are left of those that two starts may make together."""
    assert runs.most is not None
    return 2 * runs.most - runs.made


def _affordable(runs: Runs) -> int:
    """Updates that another start may make, so that the start as it is may make three times as many; 0 for too few."""
    limit = min(clock.REMEDIED_MOST, _left(runs) // (1 + clock.TIMES))
    return limit if limit >= clock.AVERAGED else 0
