"""The trial: a start is updated on one batch, with the remedy and as it is, and how fast it learns is compared.

The updates are the model's own. Everything is put back after each start, so that the training does not know of them.
Which start is tried, and with what remedy, is for the caller.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

from ..observe.engines import NoTrialError, Updates
from ..progress import Progress
from ..records import Curve, Trial
from . import clock, interrupts
from .ends import ends

SECONDS = 30.0
"""What a trial may take, where the number of updates is not given."""


class Runs:
    """Starts of one model, tried one after the other on the same batch.

    Args:
        updates: Real updates of the model; see `Probe.updates`.
        most: The most updates that one start may make. None for what fits into `SECONDS`: it is known, and stays, from
            the second update on.
        progress: Called at each update, from the second one on, with the updates made and the most that may be made.
        ask: Called after each update; may raise.

    Raises:
        NoTrialError: The loss of the model has no ends, or the batch nothing between them.
    """

    def __init__(
        self,
        updates: Updates,
        most: int | None = None,
        progress: Progress | None = None,
        ask: Callable[[], object] = lambda: None,
    ) -> None:
        self.most = most
        self.made = 0
        self.samples, self.kept = updates.samples, updates.kept
        self._updates, self._progress, self._ask = updates, progress, ask
        self._ends = ends(updates.model, updates.samples, updates.kept)

    def curve(self, change: Callable[[], Any] | None, limit: int) -> Curve:
        """The losses of one start: up to where it arrives, is lost for good, or has made as many updates as it may.

        Args:
            change: Changes the model in place, and returns the batch to train on: another one, the same or None. None
                for the start as it is.
            limit: The most updates.
        """
        with warnings.catch_warnings(), self._updates.start(change) as (batch, update):
            warnings.simplefilter("ignore")  # of a start that is only tried
            same = batch is self._updates.samples
            bounds = self._ends if same else ends(self._updates.model, batch, self._updates.kept)
            losses: list[float] = []
            while len(losses) < limit and (self.most is None or len(losses) < self.most):
                before = time.monotonic()
                losses.append(update())
                self.made += 1
                self._count(len(losses), time.monotonic() - before)
                self._ask()
                if clock.arrived(losses, *bounds) or clock.lost(losses):
                    break
        return clock.curve(losses, *bounds)

    def _count(self, made: int, seconds: float) -> None:
        if self.most is None and made == 2:
            self.most = int(SECONDS / max(seconds, 1e-9) / 2.0)  # for each of two starts
            if self.most < clock.AS_IS_LEAST:
                raise NoTrialError(
                    f"an update takes {seconds:.1f} s: {self.most} of them fit into half of {SECONDS:.0f} s, and "
                    f"{clock.AS_IS_LEAST} are needed"
                )
        if self._progress is not None and self.most is not None:
            self._progress(self.made, min(2 * self.most, clock.REMEDIED_MOST + clock.AS_IS_MOST))


def attempt(
    probe: Any,
    batch: Any,
    experiment: Callable[[Runs], Trial],
    *,
    train: Callable[[Any], Any] | None = None,
    iterator: Any = None,
    most: int | None = None,
    progress: Progress | None = None,
) -> Trial:
    """Makes an experiment with starts of a model; nothing is changed.

    Args:
        probe: A `Probe` of the model, after a `measure`.
        batch: What the model is to be updated on, as `fit` hands it to `train_step`: the whole first batch.
        experiment: Runs starts, and judges them.
        train: `fit`'s own train function; None without a `fit`.
        iterator: What `fit` calls it with.
        most: The most updates that one start may make; None for what fits into `SECONDS`; 0 for no trial.
        progress: See `Runs`.

    Returns:
        The trial. Where it could not be run, `outcome` is None, and `reason` says why.
    """
    if most == 0:
        return Trial(reason="it is switched off", allowed=0)
    runs: Runs | None = None
    try:
        with interrupts.deferred() as ask:
            runs = Runs(probe.updates(batch, train, iterator), most, progress, ask)
            return experiment(runs)
    except Exception as error:  # a remedy that cannot be applied, an optimizer that cannot be copied
        known = isinstance(error, NoTrialError)
        reason = str(error) if known else f"it failed ({type(error).__name__}: {error})"
        return Trial(reason=reason, allowed=most if runs is None else runs.most)


def run(probe: Any, batch: Any, remedied: Callable[[], Any], **options: Any) -> Trial:
    """Tries the start that a model has now, with one remedy and as it is; nothing is changed.

    Args:
        probe: See `attempt`, as for `batch` and `options`.
        batch: What the model is to be updated on.
        remedied: Changes the model in place, and returns the batch to train on: another one, the same or None.
        options: Further arguments of `attempt`.
    """

    def compared(runs: Runs) -> Trial:
        cured = runs.curve(remedied, clock.REMEDIED_MOST)
        as_is = runs.curve(None, clock.as_is_limit(cured))
        return Trial(clock.judge(as_is, cured), as_is, cured, runs.most)

    return attempt(probe, batch, compared, **options)
