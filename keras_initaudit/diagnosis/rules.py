"""The table of rules, from cause to consequence.

Each line names what a rule reads and measures, its limits, its words and its remedy, and the rules whose findings can
be its consequences. To add a rule is to add a line.
"""

from __future__ import annotations

from typing import Any

from ..records import Finding
from ..records.remedies import Remedy
from . import data, gradient, learning, outputs, recurrence, signal, units, updates, weights
from .network import Network
from .rule import FIRST, Case, Rule

SCALE = ("vanishing-signal", "exploding-signal", "vanishing-gradient", "exploding-gradient")
SATURATION = ("saturated-units", "attention-entropy")
THROUGH_TIME = ("vanishing-through-time", "exploding-through-time")
STEPS = ("update-ratio", "divergence")
SYMPTOMS = ("collapsed-samples", *SATURATION, *THROUGH_TIME, "dead-units", "initial-loss", *STEPS)


def _nothing(network: Network, case: Case) -> Remedy | None:
    """The remedy of what no code repairs."""
    del network, case
    return None


def _evidence(name: str, *values: Any) -> Any:
    """Whether the evidence of a finding has one of these values."""
    return lambda finding: finding.evidence.get(name) in values


def _all_dead(finding: Finding) -> bool:
    return float(finding.evidence["observed"]) >= 1.0


_OF_SATURATION = (
    "vanishing-gradient",
    "exploding-gradient",
    *THROUGH_TIME,
    "collapsed-samples",
    "initial-loss",
    *STEPS,
    "no-gradient",
    "no-update",
)

RULES: tuple[Rule, ...] = (
    Rule(
        "divergence",
        ("loss",),
        updates.divergence,
        ("divergence",),
        "loss over the first loss",
        updates.diverged,
        updates.lower_rate,
        ("non-finite", "dead-units", *SATURATION, "update-ratio"),
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.2.4 (cliffs and exploding gradients)",
        expected=1.0,
        later=True,
    ),
    Rule(
        "non-finite",
        ("activation_nonfinite", "preactivation_nonfinite", "backward_nonfinite", "weight_nonfinite"),
        data.non_finite,
        (),
        "fraction of values",
        data.not_finite,
        data.finite,
        (*SCALE, *SYMPTOMS, "no-gradient", "input-scale", "target-scale"),
        "IEEE 754; Goodfellow, Bengio & Courville 2016, section 4.1 (overflow and underflow)",
        follows=lambda f: "exploding-signal" if _evidence("origin", "forward", "backward", "loss")(f) else None,
        structural=True,
        later=True,
    ),
    Rule(
        "input-scale",
        ("activation_rms", "activation_max", "entering_rms"),
        data.input_scale,
        ("input_warning", "input_bad"),
        "rms of the data at the first trained layer",
        data.unscaled,
        data.rescaled,
        (*SYMPTOMS, "vanishing-gradient", "exploding-gradient", "no-gradient"),
        "LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.3",
        expected=1.0,
    ),
    Rule(
        "target-scale",
        ("activation_rms",),
        data.target_scale,
        ("target_warning", "target_bad"),
        "rms of the targets",
        data.unscaled_targets,
        data.standardised,
        (*SYMPTOMS, "vanishing-gradient", "exploding-gradient", "no-gradient"),
        "LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.3",
        expected=1.0,
    ),
    Rule(
        "output-activation",
        ("activation_mean", "activation_max"),
        outputs.output_activation,
        (),
        "activation of the outputs",
        outputs.unsuited,
        outputs.suited,
        ("initial-loss", "dead-units", "saturated-units", "no-gradient"),
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.2.2 (output units)",
        structural=True,
    ),
    Rule(
        "symmetric-units",
        ("weight_identical", "gradient_identical"),
        units.symmetric_units,
        (),
        "fraction of units that equal another one",
        units.copies,
        units.new_kernels,
        (*SCALE, *SYMPTOMS, "no-gradient", "duplicate-kernels", "fan-mismatch"),
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4 (breaking symmetry)",
        structural=True,
        postponed="gradient",
    ),
    Rule(
        "duplicate-kernels",
        ("duplicate_of", "gradient_rms", "gradient_max"),
        units.duplicate_kernels,
        (),
        "kernels that repeat another one",
        units.repeated,
        units.new_kernels,
        (),
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4 (breaking symmetry)",
        expected=0,
    ),
    Rule(
        "fan-mismatch",
        ("weight_rms", "fan_in", "fan_out", "initializer"),
        weights.fan_mismatch,
        ("fan_ratio",),
        "times as large as intended, all layers together",
        weights.wrong_fans,
        units.new_kernels,
        (*SCALE, *SYMPTOMS),
        "He, Zhang, Ren & Sun 2015, Delving deep into rectifiers, equations 7 to 10",
        expected=1.0,
        explains_half=True,
    ),
    Rule(
        "dead-units",
        ("activation_dead", "preactivation_mean"),
        units.dead_units,
        ("dead_warning", "dead_bad"),
        "fraction of units",
        units.dead,
        signal.through_with_biases,
        (),
        "Lu, Shin, Su & Karniadakis 2020, Dying ReLU and initialization, theorem 3.1",
        follows=lambda f: None if _all_dead(f) else "vanishing-signal",
        explains_more=lambda f: (*SCALE, *SYMPTOMS, "no-gradient") if _all_dead(f) else (),
        later=True,
    ),
    Rule(
        "exploding-signal",
        ("activation_rms",),
        signal.exploding_signal,
        ("signal_growth_warning", "signal_growth_bad"),
        "decades by which the activation rms grows",
        signal.grows,
        signal.remedy,
        ("non-finite", "vanishing-gradient", "exploding-gradient", *SYMPTOMS, "no-gradient"),
        "He, Zhang, Ren & Sun 2015, Delving deep into rectifiers, equation 9; Hanin & Rolnick 2018",
    ),
    Rule(
        "vanishing-signal",
        ("activation_rms",),
        signal.vanishing_signal,
        ("signal_loss_warning", "signal_loss_bad"),
        "decades by which the activation rms falls",
        signal.shrinks,
        signal.remedy,
        ("vanishing-gradient", "exploding-gradient", *SYMPTOMS, "no-gradient", "no-update"),
        "Glorot & Bengio 2010, section 4.2; He, Zhang, Ren & Sun 2015, equation 9",
        postponed="signal",
    ),
    Rule(
        "saturated-units",
        ("activation_saturated",),
        units.saturated_units,
        ("saturated_warning", "saturated_bad"),
        "fraction of pre-activations",
        units.saturated,
        units.new_kernels_and_biases,
        _OF_SATURATION,
        "Glorot & Bengio 2010, section 3 (saturation)",
    ),
    Rule(
        "attention-entropy",
        ("attention_entropy", "attention_logit_max"),
        units.attention_entropy,
        ("entropy_warning", "entropy_bad"),
        "entropy over log(keys)",
        units.sharp,
        units.new_kernels_and_biases,
        _OF_SATURATION,
        "Vaswani et al. 2017, section 3.2.1 (softmax); Zhai et al. 2023, Stabilizing transformer training by "
        "preventing attention entropy collapse, section 3",
        expected=1.0,
        less_is_worse=True,
    ),
    Rule(
        "vanishing-gradient",
        ("backward_rms",),
        gradient.vanishing_gradient,
        ("gradient_loss_warning", "gradient_loss_bad"),
        "decades by which the norm of dL/d(activation) falls",
        gradient.fades,
        signal.through,
        (*THROUGH_TIME, "collapsed-samples", "update-ratio", "no-update"),
        "Hochreiter 1991; Bengio, Simard & Frasconi 1994; Glorot & Bengio 2010, equation 6",
        postponed="gradient",
    ),
    Rule(
        "exploding-gradient",
        ("backward_rms",),
        gradient.exploding_gradient,
        ("gradient_growth_warning", "gradient_growth_bad"),
        "decades by which the norm of dL/d(activation) grows",
        gradient.grows,
        signal.through,
        (*THROUGH_TIME, *STEPS),
        "Pascanu, Mikolov & Bengio 2013; Schoenholz, Gilmer, Ganguli & Sohl-Dickstein 2017, section 4",
        postponed="gradient",
    ),
    Rule(
        "vanishing-through-time",
        ("backward_time_log10",),
        recurrence.vanishing_through_time,
        ("time_loss_warning",),
        "decades of dL/d(input) a time step",
        recurrence.erases,
        units.new_kernels,
        STEPS,
        "Hochreiter 1991; Bengio, Simard & Frasconi 1994",
    ),
    Rule(
        "exploding-through-time",
        ("backward_time_log10",),
        recurrence.exploding_through_time,
        ("gradient_growth_warning", "gradient_growth_bad"),
        "decades of dL/d(input) over all time steps",
        recurrence.multiplies,
        units.new_kernels,
        STEPS,
        "Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent networks, section 2",
    ),
    Rule(
        "collapsed-samples",
        ("activation_spread",),
        signal.collapsed_samples,
        ("spread_warning", "spread_bad"),
        "standard deviation across samples over rms",
        signal.alike,
        signal.through_with_biases,
        ("update-ratio",),
        "Poole et al. 2016; Schoenholz, Gilmer, Ganguli & Sohl-Dickstein 2017, section 3 (ordered phase)",
        expected=1.0,
        less_is_worse=True,
    ),
    Rule(
        "initial-loss",
        ("loss", "baseline_loss", "preactivation_rms"),
        data.initial_loss,
        ("loss_warning", "loss_bad"),
        "loss over the loss of an uninformed model",
        data.overconfident,
        data.smaller_outputs,
        ("exploding-gradient", *STEPS, "no-gradient"),
        "Karpathy 2019, A recipe for training neural networks (verify the loss at init)",
        expected=1.0,
    ),
    Rule(
        "no-gradient",
        ("reached", "gradient_rms"),
        weights.no_gradient,
        (),
        "rms of dL/d(weight)",
        weights.unreached,
        _nothing,
        ("vanishing-gradient", "update-ratio"),
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.2.2 (output units that saturate)",
        expected="a gradient",
        structural=True,
        postponed="gradient",
    ),
    Rule(
        "no-update",
        ("update_zero", "gradient_rms"),
        updates.no_update,
        (),
        "audits at which the last update changed nothing",
        updates.rounded_away,
        updates.longer_steps,
        ("update-ratio",),
        "IEEE 754; Micikevicius et al. 2018, Mixed precision training, section 3.1",
        expected=0,
        own_cause=_evidence("reason", "precision"),
        structural=True,
        later=True,
        counts_later=lambda _f, _early: True,
    ),
    Rule(
        "update-ratio",
        ("update_log10", "weight_rms", "gradient_rms"),
        updates.update_ratio,
        ("update_warning", "update_bad"),
        "log10 of rms(update) / rms(weight)",
        updates.unusual_steps,
        updates.other_rate,
        ("divergence", "non-finite", "dead-units", *SATURATION),
        "Karpathy 2015, CS231n notes, Neural networks 3 (ratio of weights to updates)",
        expected=-3.0,
        follows=lambda f: FIRST if f.severity == "bad" and f.evidence.get("expected_before") is False else None,
        whole=True,
        later=True,
        counts_later=lambda _f, early: early,
    ),
    Rule(
        "not-learning",
        ("loss", "constant_loss", "update_log10", "update_zero"),
        learning.not_learning,
        ("moved_warning",),
        "rms(change of a kernel) / rms(kernel), at the most",
        learning.stands_still,
        learning.larger_steps,
        (),
        "Zhang, Zhai, Ma & Shen 2021, AutoTrainer, section 3 (slow convergence)",
        less_is_worse=True,
        last_resort=True,
        later=True,
        counts_later=lambda _f, _early: True,
    ),
)
"""Every rule, causes before consequences."""

BY_SLUG = {rule.slug: rule for rule in RULES}
RANK = {rule.slug: rank for rank, rule in enumerate(RULES)}
