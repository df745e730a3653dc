"""The table of rules, from cause to consequence.

Each line names what a rule reads, the limits that bound it, and the rules whose findings can be its consequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..records import Finding
from . import data, gradient, outputs, signal, units, updates, weights
from .network import Network
from .thresholds import Thresholds


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: what a rule reads, its limits, and what it can be the cause of."""

    slug: str
    sees: tuple[str, ...]
    """Columns of the snapshot that it reads."""
    thresholds: tuple[str, ...]
    """Fields of `Thresholds` that bound them."""
    find: Callable[[Network, Thresholds], list[Finding]]
    explains: tuple[str, ...]
    """Rules whose findings are its consequences where they touch the same part of the network."""
    reference: str
    structural: bool = False
    """Whether a trial may not lower it: what is lost stays lost, though the samples of one batch do not need it."""
    later: bool = False
    """Whether a later audit can add it: most of what is a fault at the start is normal once a model has learnt."""


SCALE = ("vanishing-signal", "exploding-signal", "vanishing-gradient", "exploding-gradient")
SYMPTOMS = ("collapsed-samples", "saturated-units", "dead-units", "initial-loss", "update-ratio")

RULES: tuple[Rule, ...] = (
    Rule(
        "non-finite",
        ("activation_nonfinite", "preactivation_nonfinite", "backward_nonfinite", "weight_nonfinite"),
        (),
        data.non_finite,
        (*SCALE, *SYMPTOMS, "no-gradient", "input-scale"),
        "IEEE 754; Goodfellow, Bengio & Courville 2016, section 4.1 (overflow and underflow)",
        later=True,
        structural=True,
    ),
    Rule(
        "input-scale",
        ("activation_rms", "activation_max"),
        (
            "input_high_warning",
            "input_high_bad",
            "input_low_warning",
            "input_low_bad",
            "target_high_warning",
            "target_high_bad",
            "input_high_bad_adaptive",
            "input_step_bad",
            "narrow_bad",
        ),
        data.input_scale,
        (*SYMPTOMS, "vanishing-gradient", "exploding-gradient", "no-gradient"),
        "LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.3",
    ),
    Rule(
        "output-activation",
        ("activation_mean", "activation_max"),
        (),
        outputs.output_activation,
        ("initial-loss", "dead-units", "saturated-units", "no-gradient"),
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.2.2 (output units)",
    ),
    Rule(
        "symmetric-units",
        ("weight_identical", "gradient_identical"),
        ("identical",),
        units.symmetric_units,
        (*SCALE, *SYMPTOMS, "no-gradient", "duplicate-kernels", "fan-mismatch"),
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4 (breaking symmetry)",
        structural=True,
    ),
    Rule(
        "duplicate-kernels",
        ("duplicate_of", "gradient_rms", "gradient_max"),
        (),
        units.duplicate_kernels,
        (),
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4 (breaking symmetry)",
    ),
    Rule(
        "fan-mismatch",
        ("weight_rms", "fan_in", "fan_out", "initializer"),
        ("fan_ratio", "fan_ratio_together"),
        weights.fan_mismatch,
        (*SCALE, *SYMPTOMS),
        "He, Zhang, Ren & Sun 2015, Delving deep into rectifiers, equations 7 to 10",
    ),
    Rule(
        "dead-units",
        ("activation_dead", "preactivation_mean"),
        ("dead_warning", "dead_bad"),
        units.dead_units,
        (),
        "Lu, Shin, Su & Karniadakis 2020, Dying ReLU and initialization, theorem 3.1",
        later=True,
        structural=True,
    ),
    Rule(
        "exploding-signal",
        ("activation_rms",),
        ("signal_growth_warning", "signal_growth_bad", "narrow_bad", "residual_growth_relief"),
        signal.exploding_signal,
        ("non-finite", "vanishing-gradient", "exploding-gradient", *SYMPTOMS, "no-gradient"),
        "He, Zhang, Ren & Sun 2015, Delving deep into rectifiers, equation 9; Hanin & Rolnick 2018",
    ),
    Rule(
        "vanishing-signal",
        ("activation_rms",),
        (
            "signal_loss_warning",
            "signal_loss_bad",
            "creeping_loss",
            "adaptive_relief",
            "moving_relief",
            "pace_low",
            "gradient_floor",
        ),
        signal.vanishing_signal,
        ("vanishing-gradient", "exploding-gradient", *SYMPTOMS, "no-gradient", "no-update"),
        "Glorot & Bengio 2010, section 4.2; He, Zhang, Ren & Sun 2015, equation 9",
    ),
    Rule(
        "saturated-units",
        ("activation_saturated", "attention_entropy"),
        (
            "saturated_warning",
            "saturated_bad",
            "saturated_branch_bad",
            "torn_bad",
            "torn_branch_bad",
            "entropy_warning",
            "entropy_bad",
        ),
        units.saturated_units,
        (
            "vanishing-gradient",
            "exploding-gradient",
            "collapsed-samples",
            "initial-loss",
            "update-ratio",
            "no-gradient",
            "no-update",
        ),
        "Glorot & Bengio 2010, section 3 (saturation); Vaswani et al. 2017, section 3.2.1 (softmax)",
    ),
    Rule(
        "vanishing-gradient",
        ("backward_rms",),
        (
            "gradient_loss_warning",
            "gradient_loss_bad",
            "creeping_loss",
            "adaptive_relief",
            "moving_relief",
            "pace_low",
            "kernel_pace_low",
            "gradient_floor",
        ),
        gradient.vanishing_gradient,
        ("collapsed-samples", "update-ratio", "no-update"),
        "Hochreiter 1991; Bengio, Simard & Frasconi 1994; Glorot & Bengio 2010, equation 6",
    ),
    Rule(
        "exploding-gradient",
        ("backward_rms",),
        ("gradient_growth_warning", "gradient_growth_bad"),
        gradient.exploding_gradient,
        ("update-ratio",),
        "Pascanu, Mikolov & Bengio 2013; Schoenholz, Gilmer, Ganguli & Sohl-Dickstein 2017, section 4",
    ),
    Rule(
        "collapsed-samples",
        ("activation_spread",),
        ("spread_warning", "spread_bad"),
        signal.collapsed_samples,
        ("update-ratio",),
        "Poole et al. 2016; Schoenholz, Gilmer, Ganguli & Sohl-Dickstein 2017, section 3 (ordered phase)",
    ),
    Rule(
        "initial-loss",
        ("loss", "baseline_loss", "preactivation_rms"),
        ("loss_warning", "loss_bad", "head_step_bad", "narrow_bad", "first_step_bad"),
        data.initial_loss,
        ("exploding-gradient", "update-ratio", "no-gradient"),
        "Karpathy 2019, A recipe for training neural networks (verify the loss at init)",
    ),
    Rule(
        "no-gradient",
        ("reached", "gradient_rms"),
        (),
        weights.no_gradient,
        ("vanishing-gradient", "update-ratio"),
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.2.2 (output units that saturate)",
        structural=True,
    ),
    Rule(
        "no-update",
        ("update_zero", "gradient_rms"),
        (),
        updates.no_update,
        ("update-ratio",),
        "IEEE 754; Micikevicius et al. 2018, Mixed precision training, section 3.1",
        later=True,
        structural=True,
    ),
    Rule(
        "update-ratio",
        ("update_log10", "weight_rms"),
        ("update_high_warning", "update_high_bad", "update_low_warning", "divergence", "normalised_steps_bad"),
        updates.update_ratio,
        ("non-finite", "dead-units", "saturated-units"),
        "Karpathy 2015, CS231n notes, Neural networks 3 (ratio of weights to updates)",
        later=True,
    ),
)
"""Every rule, causes before consequences."""

BY_SLUG = {rule.slug: rule for rule in RULES}
RANK = {rule.slug: rank for rank, rule in enumerate(RULES)}
