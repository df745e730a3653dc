"""From a remedy's text to what it does: run on the model, measured on the same batch, and taken back again.

A remedy is Python source. It assigns arguments of the layers in the finding's `evidence["layers"]`, as
`kernel_initializer` or `embeddings_initializer`, or `preprocessing`, a layer in front of the data; or it changes the
data, the arrays `x` and `y`; or it acts on `model`.
`prove` runs each one on the model itself, for a model of any kind can be measured and not every one can be cloned; the
weights are put back bit for bit, whatever happens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ..diagnosis import Thresholds, diagnose, seen_by
from ..diagnosis.proposals import WHOLE_MODEL
from ..diagnosis.wording import num
from ..initializers.base import mix
from ..layers import catalogue
from ..observe import describe
from ..observe.engines import engine
from ..observe.engines.undocumented import names_kept, weights_of
from ..observe.probe import iterations
from ..records import Finding, LayerInfo, Snapshot
from .proof import effect

_DATA = ("x", "y")


def run(text: str, model: Any, batch: Any = ()) -> dict[str, Any]:
    """Runs a remedy with `model`, `x` and `y` set, and returns what it assigned of the names that a remedy may assign.

    Args:
        text: Source, as `Finding.remedy` holds it.
        model: The model; it is changed where the text acts on it.
        batch: `(x, y)` or the beginning of it; the text sees numpy arrays.
    """
    data = {
        name: keras.tree.map_structure(np.asarray, part)
        for name, part in zip(_DATA, batch, strict=False)
        if re.search(rf"\b{name}\b", text)  # not every kind of data has a numpy form
    }
    names: dict[str, Any] = {"model": model, **data}
    exec(compile(text, "<remedy>", "exec"), names)
    changed = {name: names[name] for name in data if names[name] is not data[name]}
    return {name: value for name, value in names.items() if _assigned(name)} | changed


def _assigned(name: str) -> bool:
    return name in ("initializer", "preprocessing") or name.endswith("_initializer")


def apply(finding: Finding, model: Any, batch: Any = ()) -> Any:
    """Changes a model in place as the finding's remedy says, or the data.

    Args:
        finding: With a remedy.
        model: The model that it was made for. Weights of the layers in `evidence["layers"]` are drawn again; each has
            a seed that follows from its path, so that the same call gives the same weights.
        batch: The data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        The batch: the same object where the remedy leaves the data alone, a new one where it puts a layer in front of
        `x`, or changes `x` or `y`.

    Raises:
        ValueError: When there is no remedy, or it names a layer that the model has not.
    """
    if finding.remedy is None:
        raise ValueError(f"The finding {finding.rule!r} at {finding.layer!r} has no remedy to apply.")
    made = run(finding.remedy, model, batch)
    changed = {i: _like(batch[i], made.pop(name)) for i, name in enumerate(_DATA) if name in made}
    preprocessing = made.pop("preprocessing", None)
    if made:
        for path, layer, part in _targets(finding, model):
            _start_again(path, layer, part, made)
    if preprocessing is not None and batch:
        changed[0] = _preprocessed(batch[0], preprocessing, finding)
    return tuple(changed.get(i, part) for i, part in enumerate(batch)) if changed else batch


def prove(findings: Sequence[Finding], probe: Any, thresholds: Thresholds | None = None) -> tuple[Finding, ...]:
    """The findings, each with what its remedy does to this model on this batch, in `proof`.

    A remedy that does not help is replaced by a new start of the whole model where that does, and dropped where it does
    not. One that changes the learning rate shows only in training: a few updates are made, and taken back.

    Args:
        findings: What was found in the probe's model as it is.
        probe: A `Probe`, after a `measure`; it and its model end as they were.
        thresholds: Limits of the rules, those of the diagnosis that made the findings.

    Returns:
        As many findings, in the same order.
    """
    proven = []
    before: tuple[Snapshot, float] | None = None
    for finding in findings:
        if finding.remedy is None:
            proven.append(finding)
        elif "learning_rate" in finding.remedy:
            proven.append(_with_shorter_steps(finding, probe, thresholds))
        else:
            if before is None:
                with _kept(probe):
                    before = probe.measure(0), _penalty(probe.model)
            proven.append(_proven(finding, probe, thresholds, before))
    return tuple(proven)


def _proven(finding: Finding, probe: Any, thresholds: Thresholds | None, before: tuple[Snapshot, float]) -> Finding:
    assert finding.remedy is not None
    texts = [finding.remedy]
    if WHOLE_MODEL not in texts and "preprocessing" not in finding.remedy:
        texts.append(WHOLE_MODEL)
    weaker: Finding | None = None
    for text in texts:
        tried = dataclasses.replace(finding, remedy=text)
        try:
            after, penalty = _after(tried, probe)
        except Exception:  # a remedy that does not run is none, whatever the reason
            continue
        found = diagnose([after], thresholds)
        proof = effect(tried, before[0], after, found, thresholds, (before[1], penalty))
        if proof is not None and not seen_by(finding.rule, after, thresholds):
            return dataclasses.replace(tried, proof=proof)
        if proof is not None and weaker is None:
            weaker = dataclasses.replace(tried, proof=proof)
    return dataclasses.replace(finding, remedy=None) if weaker is None else weaker


# --- trying

_UPDATES = 3
_SHORTER = 4
"""Updates of a trial, and how often the step is divided by ten until they bring the loss down."""

_TRIES = 64
"""Training steps within which an optimizer must make an update: a loss scale of 2^15 is halved 15 times at most."""


def _with_shorter_steps(finding: Finding, probe: Any, thresholds: Thresholds | None) -> Finding:
    """The finding with the longest step that learns from a new start: by now the old one may be beyond repair."""
    assert finding.remedy is not None
    model, dropped = probe.model, dataclasses.replace(finding, remedy=None)
    if engine().replicas(model) > 1:  # an update by hand is made on one replica
        return dropped
    try:
        with _everything_kept(probe), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(finding.remedy, model)
            first = float(model.optimizer.learning_rate)
        for rate in (first / 10.0**i for i in range(_SHORTER)):
            text = f"model.optimizer.learning_rate = {rate:.1g}"
            with _everything_kept(probe):
                start, first_update, end = _trained(text, probe)
            found = diagnose([start, first_update, end], thresholds)
            if end.loss < start.loss and not any(other.rule == finding.rule for other in found):
                changes = [row.update_log10 for row in first_update.statistics if not math.isnan(row.update_log10)]
                proof = (
                    f"from a new start, {_UPDATES} updates bring the loss of this batch from {start.loss:.4g} to "
                    f"{end.loss:.4g}; the first changes no kernel by more than {num(10.0 ** max(changes))} of its size"
                )
                return dataclasses.replace(finding, remedy=text, proof=proof)
    except Exception:  # a schedule that cannot be set, an optimizer or a training step that cannot be run by hand
        return dropped
    return dropped


def _trained(text: str, probe: Any) -> tuple[Snapshot, Snapshot, Snapshot]:
    """The snapshots before, after the first of and after a few updates, from a new start of model and optimizer."""
    biases = [v for v in probe.model.trainable_variables if v.path.rpartition("/")[2] == "bias"]
    for variable in biases:
        variable.assign(ops.zeros_like(variable))
    run(WHOLE_MODEL.replace("(model)", "(model, seed=0)"), probe.model)
    _start_optimizer(probe.model.optimizer)  # after the weights: some keep copies of them
    run(text, probe.model)
    start: Snapshot = probe.measure(0)
    probe.mark()
    _update(probe)
    first: Snapshot = probe.measure(1)
    for _ in range(_UPDATES - 1):
        _update(probe)
    end: Snapshot = probe.measure(_UPDATES)
    return start, first, end


def _update(probe: Any) -> None:
    """Training steps until the optimizer has made one update: it may skip some, or collect gradients first."""
    optimizer = probe.model.optimizer
    before = iterations(optimizer)
    for _ in range(_TRIES):
        probe.update()
        if iterations(optimizer) > before:
            return
    raise RuntimeError(f"the optimizer {optimizer.name!r} made no update in {_TRIES} training steps")


def _start_optimizer(optimizer: Any) -> None:
    """Gives an optimizer the state that a freshly built copy of it has for the weights as they are now.

    Zeros would not do: a loss scale of 0 makes NaN of every gradient, and slots may be copies of the weights.
    """
    if not optimizer.built:  # to build it here would leave it built, for weights that may yet be frozen
        raise ValueError(f"the optimizer {optimizer.name!r} has made no update")
    copy = type(optimizer).from_config(optimizer.get_config())
    copy.build(weights_of(optimizer))
    for variable, fresh in zip(_state(optimizer), _state(copy), strict=True):
        variable.assign(fresh.value)


def _state(optimizer: Any) -> list[Any]:
    """All variables of an optimizer and of those that it wraps, also what one does not list, as Nadam's product."""
    found = {id(variable): variable for variable in optimizer.variables}
    weights = {id(variable) for variable in weights_of(optimizer)}
    for part in (optimizer, getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())):
        for value in vars(part).values() if part is not None else ():
            for held in value if isinstance(value, list | tuple) else (value,):
                if isinstance(held, keras.Variable) and id(held) not in weights:
                    found.setdefault(id(held), held)
    return list(found.values())


@contextlib.contextmanager
def _everything_kept(probe: Any) -> Iterator[None]:
    """Puts back all that a trial with updates changes."""
    with names_kept(), probe.everything_kept(), _kept(probe, _state(probe.model.optimizer)):
        yield


def _after(finding: Finding, probe: Any) -> tuple[Snapshot, float]:
    """The snapshot with the remedy, and what the regularizers of the weights add to its loss."""
    with _kept(probe):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a start that is only tried
            batch = apply(finding, probe.model, probe.batch)
        if batch is not probe.batch:
            # Another dtype or number of samples may come out of it, so that the probe's own trace does not fit.
            other: Snapshot = type(probe)(probe.model, batch, histograms=False).measure(0)
            return other, _penalty(probe.model)
        snapshot: Snapshot = probe.measure(0)
        described = dataclasses.replace(snapshot, layers=_described_again(finding, probe, snapshot))
        return described, _penalty(probe.model)


def _penalty(model: Any) -> float:
    """What the regularizers of the weights add to the loss."""
    pairs = [(v.regularizer, ops.copy(v)) for v in model.trainable_variables if v.regularizer is not None]
    return sum(float(ops.convert_to_numpy(regularizer(value))) for regularizer, value in pairs)


def _like(before: Any, array: Any) -> Any:
    """An array as a tensor: of the type that was there, unless whole numbers have become fractions."""
    whole = not np.issubdtype(np.asarray(before).dtype, np.floating) and np.issubdtype(array.dtype, np.floating)
    return ops.convert_to_tensor(array, dtype=keras.config.floatx() if whole else before.dtype)


def _preprocessed(x: Any, layer: Any, finding: Finding) -> Any:
    leaves = keras.tree.flatten_with_path(x)
    source = str(finding.evidence.get("source", ""))
    chosen = [
        index
        for index, (path, leaf) in enumerate(leaves)
        if len(leaves) == 1 or source == f"(input {'/'.join(str(key) for key in path)})"
    ]
    flat = [layer(leaf) if index in chosen else leaf for index, (_, leaf) in enumerate(leaves)]
    return keras.tree.pack_sequence_as(x, flat)


def _described_again(finding: Finding, probe: Any, snapshot: Snapshot) -> tuple[LayerInfo, ...]:
    """The rows with what a new start changes in them: the initializer, and which weights repeat another's numbers."""
    repeated = probe.duplicates()
    made = run(finding.remedy or "", None, probe.batch) if "initializer = " in (finding.remedy or "") else {}
    touched = {path.partition("#")[0] for path in _paths(finding)}
    rows = []
    for row in snapshot.layers:
        changes: dict[str, Any] = {"duplicate_of": repeated.get(row.path)}
        if "initialize(" in (finding.remedy or "") and row.weight is not None:
            changes |= {"initializer": None, "initializer_config": {}}
        scheme = made.get(row.initializer_argument or "")
        if scheme is not None and row.role == "layer" and row.path.partition("#")[0] in touched:
            changes |= {"initializer": type(scheme).__name__, "initializer_config": dict(scheme.get_config())}
        rows.append(dataclasses.replace(row, **changes))
    return tuple(rows)


@contextlib.contextmanager
def _kept(probe: Any, more: Sequence[Any] = ()) -> Iterator[None]:
    """The model's variables, `more` of them, the probe's mark and the random states, put back at the end."""
    held = {id(variable): variable for variable in [*probe.model.variables, *more]}
    values = [(variable, ops.copy(variable.value)) for variable in held.values()]
    mark, probe.marked = probe.marked, None
    try:
        with probe.randomness_kept():
            yield
    finally:
        for variable, value in values:
            variable.assign(value)
        probe.marked = mark


# --- applying


def _paths(finding: Finding) -> list[str]:
    return [str(path) for path in finding.evidence.get("layers") or ([finding.layer] if finding.layer else [])]


def _targets(finding: Finding, model: Any) -> Iterator[tuple[str, Any, str | None]]:
    """(path, layer, name of one weight or None for all of them) of what the finding's remedy is for."""
    names = describe.layer_paths(model)
    layers = {names[id(layer)]: layer for layer in model._flatten_layers() if id(layer) in names}
    for row in _paths(finding):
        path = re.sub(r"#\d+", "", row)
        owner, _, part = path.rpartition("/")
        if path in layers:
            yield path, layers[path], None
        elif owner in layers:
            yield path, layers[owner], part
        else:
            raise ValueError(f"The remedy of {finding.rule!r} is for {row!r}, which is no layer of {model.name!r}.")


def _start_again(path: str, layer: Any, part: str | None, made: dict[str, Any]) -> None:
    for inner in layer._flatten_layers():
        for name, owner, attribute in catalogue.own_kernels(inner):
            if part is not None and name != part:
                continue
            variable = getattr(owner, attribute)
            argument = describe.initializer_argument(owner, variable)
            if argument in made:
                draw(owner, variable, made[argument], f"{path}/{name}")
        bias = getattr(inner, "bias", None)
        if "bias_initializer" in made and part is None and isinstance(bias, keras.Variable):
            draw(inner, bias, made["bias_initializer"], f"{path}/bias")
            _open_forget_gate(inner, bias)


def draw(owner: Any, variable: Any, initializer: Any, path: str, seed: int = 0) -> None:
    """Starts one weight by an initializer as its layer would have: EinsumDense says its axes; the seed is the path's.

    Args:
        owner: The layer that owns the weight.
        variable: The weight.
        initializer: Any Keras initializer, or a name.
        path: What the seed follows from; an initializer with a seed of its own keeps it.
        seed: Mixed into the seed.
    """
    scheme = keras.initializers.get(initializer)
    config = scheme.get_config() if isinstance(scheme, keras.initializers.Initializer) else {}
    told: dict[str, Any] = {}
    if "seed" in config and config["seed"] is None:
        told["seed"] = mix(seed, path)
    if "input_axes" in config and config["input_axes"] is None and isinstance(owner, keras.layers.EinsumDense):
        told |= dict(zip(("input_axes", "output_axes"), catalogue.kernel_axes(owner), strict=True))
    if told:
        scheme = type(scheme).from_config({**config, **told})
    variable.assign(scheme(variable.shape, dtype=variable.dtype))


def _open_forget_gate(cell: Any, bias: Any) -> None:
    if getattr(cell, "unit_forget_bias", False):  # as Keras adds to whatever bias initializer an LSTM is given
        value = np.array(ops.convert_to_numpy(ops.copy(bias)))
        value[cell.units : 2 * cell.units] = 1.0
        bias.assign(value)
