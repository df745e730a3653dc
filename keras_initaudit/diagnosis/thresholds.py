"""The limits of the rules, each with its reason: every number that a verdict depends on is a field of `Thresholds`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The limits of the rules: each field says what it bounds, in which unit, and where the number comes from.

    "Study" is `tests/benchmarks/trainability.py`: networks that were trained with and without the fault; its figures
    are in `tests/reference/trainability.txt`. A warning starts at the limit named `*_warning`; the start is bad from
    the one named `*_bad` on. Decades are powers of ten.

    Raises:
        ValueError: for a limit that is not a finite number, or a warning that would come after "bad".
    """

    signal_loss_warning: float = 2.0
    """Decades that the activation rms may fall from the input, or the last normalisation, to any later layer."""
    signal_loss_bad: float = 2.5
    """Study, SGD: of the networks that lost 2.1 to 2.6 decades one half still learnt, from 3.3 on none; with Adam the
    boundary lies between 4.1 and 5.3 (`adaptive_relief`)."""
    signal_growth_warning: float = 1.5
    """Decades that it may rise."""
    signal_growth_bad: float = 2.5
    """Study: up to 2.2 decades all learnt with SGD, from 2.6 on none."""
    narrow_bad: float = 1.2
    """Decades of a scale that is too large (signal, data or first loss), times the sum of 1 / fan_in over the layers,
    from which an optimizer that divides each gradient by its size (all but SGD) does not recover. Study,
    plain networks with Adam: of 20 from 1.2 on none learnt well, of 50 below it 35 did; 12 layers 128 wide came back
    from 11 decades, and 16 layers 32 wide from data of rms 1e4 did not."""
    residual_growth_relief: float = 3.5
    """Decades more that the signal may grow with such an optimizer where skip connections bypass the layers: what
    grows is the sum of many branches. Study: selu networks of 32 blocks that gained 5.4 decades learnt like any."""
    gradient_loss_warning: float = 2.5
    """Decades that the norm of dL/d(activation) may fall from the last hidden layer back to an earlier one."""
    gradient_loss_bad: float = 3.6
    """Study, SGD: healthy residual networks lose up to 3.5, networks that lose 3.8 do not learn. With Adam the boundary
    lies between 4.6 and 6 (`adaptive_relief`)."""
    adaptive_relief: float = 2.0
    """Decades more that a fading signal or gradient may lose before it is bad where the optimizer divides each gradient
    by its size (all but SGD): its step does not shrink with the gradient, until that meets the optimizer's epsilon.
    Only where the gradients of the weights are not known."""
    moving_relief: float = 4.0
    """The same where they are known, and the weights move all the same."""
    creeping_loss: float = 2.5
    """Decades that signal and gradient may lose together, gates' share taken off, where a recurrent network stands
    still (`pace_low`, `gradient_floor`). As Keras ships them three LSTM layers lose 0.6, two behind two ReLU ones 1.6,
    and learn; in the study all five that lost more than 2.2 did not."""
    pace_low: float = -2.73
    """log10 of learning rate / (1 - momentum) x rms(gradient) / rms(weight), the sum over the kernels that a signal has
    passed but the fastest, below which SGD is too slow to bring it back (Saxe et al. 2014 solve it for linear
    networks). Study: of 154 networks below it 4 learnt well, above -2.7 most did."""
    kernel_pace_low: float = -4.0
    """The same of a single kernel, for a gradient that fades: a quarter of the kernels below it."""
    gradient_floor: float = -6.15
    """log10 of rms(gradient) below which the epsilon of an adaptive optimizer (1e-7) is no longer small beside many of
    its elements: the median kernel for a signal that fades, a quarter of them for a gradient. Study: of 95
    networks below it whose signal fades 3 learnt well, of 70 above it 40 did, and all but 2 of the others slowly."""
    gradient_growth_warning: float = 2.5
    """Decades that it may rise on the way back."""
    gradient_growth_bad: float = 3.2
    """Study: tanh networks deep in the chaotic phase (Schoenholz et al. 2017) gain 3.4 and do not learn; healthy ones
    gain up to 1.5. With a normalisation between them there is no finding below twice as much: EfficientNetB3 gains
    3.6, because the normalisation makes the weights of a layer indifferent to their scale."""
    time_loss_warning: float = 0.43
    """Decades that the gradient may lose at one time step of a recurrent layer: from here on a single step leaves 1 / e
    of it, and the layer has no memory. As Keras ships them, over 50 and 200 steps, LSTM loses 0.07 to 0.09, SimpleRNN
    0.11 to 0.17 and GRU 0.21; SimpleRNN with N(0, 0.05) or a sigmoid loses 0.5 and 0.66."""
    dead_warning: float = 0.7
    """Fraction of units of a layer that are zero for the whole batch. He-initialised ReLU networks show up to one half
    at depth 64, where the samples have become alike (Poole et al. 2016): only above that is it a fault."""
    dead_bad: float = 0.95
    saturated_warning: float = 0.35
    """Fraction of pre-activations on a flat end of the activation. A unit-scale pre-activation puts under 1 % there."""
    saturated_bad: float = 0.55
    """Where that stops the gradient, so that weights stand still, and within recurrent layers, where what passes
    through time is not seen. Study: recurrent networks with up to 54 % of them there still learnt, if slowly."""
    saturated_branch_bad: float = 0.97
    """The same where a skip connection bypasses the layer: up to 95 % there still learnt."""
    torn_bad: float = 0.75
    """The fraction that is saturated, times the decades that the gradient rises on its way back: the few other
    units make it very uneven. Study, plain tanh networks: up to 0.67 ten of thirteen learnt, from 0.87 on none."""
    torn_branch_bad: float = 3.0
    """The same where skip connections bypass layers: up to 2.4 all learnt, if slowly, from 3.9 on one of five."""
    entropy_warning: float = 0.35
    """Entropy of the attention weights over log(keys): 1 where all keys count the same, as they should at the start."""
    entropy_bad: float = 0.05
    """Study: attention with 7 % left still learnt, more slowly; with less, in most cases not."""
    spread_warning: float = 1e-3
    """Standard deviation of a unit across samples over its rms, at the last hidden layer. He-initialised ReLU networks
    keep about 0.1 at depth 64 (the correlation approaches 1 as 1 - 9 pi^2 / (2 depth^2), Hayou et al. 2019)."""
    spread_bad: float = 1e-6
    """Study: layer-normalised sigmoid networks with 1e-5 still learnt. Float32 ends at 1e-7."""
    identical: float = 0.9
    """Fraction of the units of a layer that start as copies of each other. A random start has none; one half copied on
    purpose (ICNR, widened networks) must not count."""
    input_high_warning: float = 10.0
    """Rms of what reaches the first trained layer; standardised data has 1, pixels in [0, 1] about 0.5, digits in
    [0, 16] about 8, raw pixels about 140."""
    input_high_bad: float = 50.0
    """Study: with SGD, data of rms 100 made every dense and convolutional network diverge."""
    input_high_bad_adaptive: float = 1e5
    """Study: with Adam all but one learnt from data of rms 100, and most still from 1e4."""
    input_low_warning: float = 1e-3
    """A one-hot code of 50 000 words has 0.0045."""
    input_low_bad: float = 2e-4
    """Study: from data of rms 1e-4 nothing was learnt, with SGD or with Adam."""
    target_high_warning: float = 30.0
    """Rms of regression targets: a recommended start answers with outputs of about 1."""
    target_high_bad: float = 1e3
    loss_warning: float = 3.0
    """First loss over the loss of an uninformed model. He-initialised networks reach 2 (Goyal et al. 2017 zero the last
    layers to get 1)."""
    loss_bad: float = 1e3
    """Where the steps of the last layer are too short to bring it down (`head_step_bad`): 12 gelu layers 128 wide
    learnt with Adam from a first loss of 8e11 times the uninformed one. A loss of probabilities is cut off at 16."""
    head_step_bad: float = -3.5
    """log10 of the share of the weights of the last layer that an update can change: learning rate / rms(weight), with
    SGD times rms(gradient) / (1 - momentum)."""
    first_step_bad: float = -0.86
    """log10 of learning rate / sqrt(1 - momentum) x rms(gradient) / size of the weights, the median of the kernels,
    from which SGD diverges where the first loss is large, and nothing keeps what is hidden within limits: no tanh, no
    normalisation. Study, momentum 0.9: of 96 such networks above it 92 did not learn, of 19 below it 17 did, and of 105
    that are kept within limits 95, whatever the length of their steps.
    Five networks at eight learning rates, without momentum: all learnt at -1, one at -0.8, none at -0.4."""
    input_step_bad: float = -1.5
    """The same where unscaled data comes in. Study: all 34 above it, down to one at -1.43, did not learn, while of
    77 that are kept within limits 61 did."""
    update_high_warning: float = -0.5
    """log10 of rms(update) / rms(weight) at the first steps; about -3 is usual (Karpathy 2015), Adam's first steps
    reach -1.3 on wide layers."""
    update_high_bad: float = 0.5
    update_low_warning: float = -7.0
    """Below this no step of a usual training is long enough to matter: 1e5 updates change the weights by 1 %."""
    moved_warning: float = 0.01
    """The most that any kernel can have moved, over its size, where a start that is no better than a constant answer
    counts as standing still: 20 usual updates move it by 0.02, and 100 by 0.1 (Karpathy 2015)."""
    normalised_steps_bad: float = 9.0
    """Length of a chain of layer-normalised kernels, times the sum over it of the first step over the size of the
    weights: every layer moves, and every layer answers to the moves of all others. Study: of
    16 networks above it none learnt well."""
    fan_ratio: float = 1.3
    """Ratio of the standard deviation to the one that the scheme means with the true fans: where a layer counts."""
    fan_ratio_together: float = 1.8
    """The ratios of all such layers, multiplied: one transposed convolution of stride 2 as Keras ships it gives 1.4."""
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
    ("input_high", False),
    ("input_low", True),
    ("target_high", False),
    ("loss", False),
    ("update_high", False),
)
"""Limits that come in pairs, and whether smaller is worse."""
