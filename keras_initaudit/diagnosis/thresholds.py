"""The limits of the rules, each with its reason: every number that a verdict depends on is a field of `Thresholds`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The limits of the rules: each field says what it bounds, in which unit, and where the number comes from.

    "Study" is `tests/benchmarks/trainability.py`: networks that were trained with and without the fault; its figures
    are in `tests/reference/trainability.txt`. What reaches the limit named `*_warning` is worth a look, and a trial;
    where nothing can be tried, the start is bad from the one named `*_bad` on. No limit depends on the optimizer.
    Decades are powers of ten.

    Raises:
        ValueError: for a limit that is not a finite number, or a warning that would come after "bad".

    Example:
        >>> Thresholds().dead_warning, Thresholds(dead_warning=0.9).dead_warning
        (0.7, 0.9)
    """

    signal_loss_warning: float = 2.0
    """Decades that the activation rms may fall from the input, or the last normalisation, to any later layer."""
    signal_loss_bad: float = 2.5
    """Study, SGD: of the networks that lost 2.1 to 2.6 decades one half still learnt, from 3.3 on none."""
    signal_growth_warning: float = 1.5
    """Decades that it may rise."""
    signal_growth_bad: float = 2.5
    """Study: up to 2.2 decades all learnt with SGD, from 2.6 on none."""
    gradient_loss_warning: float = 2.5
    """Decades that the norm of dL/d(activation) may fall from the last hidden layer back to an earlier one."""
    gradient_loss_bad: float = 3.6
    """Study, SGD: healthy residual networks lose up to 3.5, networks that lose 3.8 do not learn."""
    gradient_growth_warning: float = 2.5
    """Decades that it may rise on the way back; twice as many where a normalisation lies on the way."""
    gradient_growth_bad: float = 3.2
    """Study: tanh networks deep in the chaotic phase (Schoenholz et al. 2017) gain 3.4 and do not learn; healthy ones
    gain up to 1.5."""
    time_loss_warning: float = 0.43
    """Decades that the gradient may lose at one time step of a recurrent layer: from here on a single step leaves 1 / e
    of it, and the layer has no memory. As Keras ships them, over 50 and 200 steps, LSTM loses 0.07 to 0.09, SimpleRNN
    0.11 to 0.17 and GRU 0.21; SimpleRNN with N(0, 0.05) or a sigmoid loses 0.5 and 0.66."""
    dead_warning: float = 0.7
    """Fraction of units of a layer that are zero for the whole batch. He-initialised ReLU networks show up to one half
    at depth 64, where the samples have become alike (Poole et al. 2016): only above that is it a fault."""
    dead_bad: float = 0.95
    """What is left are a few units of a layer, through which everything must pass."""
    saturated_warning: float = 0.35
    """Fraction of pre-activations on a flat end of the activation. A unit-scale pre-activation puts under 1 % there."""
    saturated_bad: float = 0.55
    """Study: recurrent networks with up to 54 % of them there still learnt, if slowly."""
    entropy_warning: float = 0.35
    """Entropy of the attention weights over log(keys): 1 where all keys count the same, as they should at the start."""
    entropy_bad: float = 0.05
    """Study: attention with 7 % left still learnt, more slowly; with less, in most cases not."""
    spread_warning: float = 1e-3
    """Standard deviation of a unit across samples over its rms, at the last hidden layer. He-initialised ReLU networks
    keep about 0.1 at depth 64 (the correlation approaches 1 as 1 - 9 pi^2 / (2 depth^2), Hayou et al. 2019)."""
    spread_bad: float = 1e-6
    """Study: layer-normalised sigmoid networks with 1e-5 still learnt. Float32 ends at 1e-7."""
    input_warning: float = 2.0
    """Decades that the rms of what reaches the first trained layer may lie from 0.1, the middle of what is usual: from
    0.001 (a one-hot code of 50 000 words has 0.0045) to 10 (digits in [0, 16] have about 8, raw pixels about 140)."""
    input_bad: float = 2.7
    """That is 50, or 2e-4. Study, SGD: data of rms 100 made every dense and convolutional network diverge, and from
    data of rms 1e-4 nothing was learnt."""
    target_warning: float = 30.0
    """Rms of regression targets: a recommended start answers with outputs of about 1."""
    target_bad: float = 1e3
    """Adam at its usual rate of 0.001 moves an output bias by 1 in a thousand updates."""
    loss_warning: float = 3.0
    """First loss over the loss of an uninformed model. He-initialised networks reach 2 (Goyal et al. 2017 zero the last
    layers to get 1)."""
    loss_bad: float = 1e3
    """A loss of probabilities is cut off at 16; what is so far above it comes of a mean square or of large logits."""
    update_warning: float = 3.25
    """Decades that rms(update) / rms(weight) may lie from 10^-3.75, the middle of what is usual: from 10^-7 (1e5 such
    updates change the weights by 1 %) to 10^-0.5. About 10^-3 is usual (Karpathy 2015), and Adam's first steps reach
    10^-1.3 on wide layers."""
    update_bad: float = 4.25
    """That is a step of three times the weights, or one under the rounding of float32."""
    fan_ratio: float = 1.8
    """Ratios of the standard deviation to the one that the scheme means with the true fans, of all such layers,
    multiplied: one transposed convolution of stride 2 as Keras ships it gives 1.4."""
    moved_warning: float = 0.01
    """The most that any kernel can have moved, over its size, where a start that is no better than a constant answer
    counts as standing still: 20 usual updates move it by 0.02, and 100 by 0.1 (Karpathy 2015)."""
    divergence: float = 10.0
    """Loss at a later audit over the first loss and over the uninformed one, at which the run counts as diverged."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"Thresholds: {field.name} must be a finite number, got {value!r}")
        for stem, falling in _PAIRS:
            warning, bad = getattr(self, f"{stem}_warning"), getattr(self, f"{stem}_bad")
            if (bad > warning) if falling else (bad < warning):
                relation = "not above" if falling else "not below"
                raise ValueError(f"Thresholds: {stem}_bad must be {relation} {stem}_warning, got {bad} and {warning}")


_PAIRS: tuple[tuple[str, bool], ...] = (
    ("signal_loss", False),
    ("signal_growth", False),
    ("gradient_loss", False),
    ("gradient_growth", False),
    ("dead", False),
    ("saturated", False),
    ("entropy", True),
    ("spread", True),
    ("input", False),
    ("target", False),
    ("loss", False),
    ("update", False),
)
"""Limits that come in pairs, and whether smaller is worse."""
