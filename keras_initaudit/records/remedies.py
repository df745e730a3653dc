"""Remedies as data: what to change, and the code with which a person changes it.

`keras_initaudit.remedies.apply` does to a model or its data what a remedy says. Nothing runs or reads the code.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change that repairs a finding: the base of all remedies."""

    @property
    def code(self) -> str:
        """Python code that makes the change: on a model `model`, on arrays `x` and `y`, or by names to use."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Scheme:
    """An initializer of this package, by its name and its arguments."""

    initializer: str
    """Name of the class, as `HeNormal`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """JSON values only."""

    @property
    def code(self) -> str:
        """The call, as `HeNormal(gain="gelu")`."""
        return f"{self.initializer}({', '.join(f'{name}={literal(value)}' for name, value in self.arguments.items())})"


@dataclass(frozen=True, slots=True)
class Reinitialize(Remedy):
    """Draw the weights of some layers again, by the initializers that their arguments should have."""

    schemes: Mapping[str, Scheme]
    """Argument of a layer -> the initializer to give it, as `kernel_initializer`; a layer without the argument is left
    as it is."""
    kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Argument -> classes of the layers that have it, where not all of them do."""
    layers: tuple[str, ...] = ()
    """Paths of the layers, or of single weights, as `lstm/recurrent_kernel`."""

    @property
    def code(self) -> str:
        """Assigns each initializer to the name of its argument."""
        names = sorted({scheme.initializer for scheme in self.schemes.values()})
        lines = [f"from keras_initaudit import {', '.join(names)}"]
        for argument, scheme in self.schemes.items():
            kinds = ", ".join(kind if kind.isidentifier() else literal(kind) for kind in self.kinds.get(argument, ()))
            lines.append(f"{argument} = {scheme.code}{f'  # {kinds}' if kinds else ''}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class PlainNormalization(Remedy):
    """Start normalizations as Keras does: gamma at ones, beta at zeros."""

    layers: tuple[str, ...] = ()
    """Paths of the layers."""

    @property
    def code(self) -> str:
        """Assigns the names of the initializers to the names of their arguments."""
        return 'gamma_initializer = "ones"\nbeta_initializer = "zeros"'


@dataclass(frozen=True, slots=True)
class Activate(Remedy):
    """Give layers another activation, and draw the kernels in front of it by the initializers that suit it."""

    activation: str
    """Name of a function of `keras.activations`."""
    layers: tuple[str, ...] = ()
    """Paths of the layers that apply the activation: those that have the kernels, or `Activation` layers."""
    start: Reinitialize | None = None
    """How the kernels start; None where they stay as they are."""

    @property
    def code(self) -> str:
        """Assigns the name to `activation`, and each initializer to the name of its argument."""
        line = f"activation = {literal(self.activation)}"
        return line if self.start is None else f"{line}\n{self.start.code}"


@dataclass(frozen=True, slots=True)
class Widen(Remedy):
    """Build the model again with more units: a layer that is built keeps its width."""

    units: int
    layers: tuple[str, ...] = ()
    """Paths of the layers that are too narrow."""
    argument: Literal["units", "filters"] = "units"

    @property
    def code(self) -> str:
        """Assigns the number to the name of the argument."""
        return f"{self.argument} = {self.units}  # of the layers that are too narrow, before the model is built"


@dataclass(frozen=True, slots=True)
class WholeModel(Remedy):
    """Start all layers of the model again, each by its true fans and the gain of its activation."""

    @property
    def code(self) -> str:
        """Calls `initialize`."""
        return "from keras_initaudit import initialize\ninitialize(model)"


_ALL = "# {name} holds all the {data} that you train on: those of one batch may lie elsewhere"
"""The line above code that takes figures of the data: the data may be in an order, of time or of classes."""


@dataclass(frozen=True, slots=True)
class Preprocess(Remedy):
    """Put a layer in front of an input that brings it to unit scale."""

    how: Literal["bytes", "standardize", "columns", "tiny"]
    """`bytes` divides by 255; `standardize` takes the mean and the standard deviation of all the data; `columns` those
    of each column, the last axis; `tiny` those of all the data where the standard deviation is below the least one that
    `keras.layers.Normalization` divides by."""
    keys: tuple[str | int, ...] = ()
    """Where the input is in `x`, a list or dict of arrays; empty where `x` is one array."""

    @property
    def code(self) -> str:
        """Assigns the layer to `preprocessing`."""
        if self.how == "bytes":
            return "import keras\npreprocessing = keras.layers.Rescaling(1.0 / 255)"
        data = "x" + "".join(f"[{literal(key)}]" for key in self.keys)
        lines = [_ALL.format(name="x", data="inputs"), "import keras"]
        if self.how == "tiny":
            scale, offset = f"float(1 / {data}.std())", f"float(-{data}.mean() / {data}.std())"
            return "\n".join([*lines, f"preprocessing = keras.layers.Rescaling({scale}, offset={offset})"])
        axis = -1 if self.how == "columns" else None
        lines += [f"preprocessing = keras.layers.Normalization(axis={axis})", f"preprocessing.adapt({data})"]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ScaleTargets(Remedy):
    """Bring the targets to mean 0 and standard deviation 1.

    The figures are those of all the targets, which an audit of one batch does not know: so it has no fields.
    """

    @property
    def code(self) -> str:
        """Changes `y`."""
        return _ALL.format(name="y", data="targets") + "\ny = (y - y.mean()) / y.std()"


@dataclass(frozen=True, slots=True)
class CleanData(Remedy):
    """Remove NaN and infinity: from the inputs by zeros, from the targets with the samples that have them."""

    part: Literal["inputs", "targets"]

    @property
    def code(self) -> str:
        """Changes `x`, or `x` and `y`."""
        if self.part == "inputs":
            return "import numpy as np\nx = np.nan_to_num(x, posinf=0.0, neginf=0.0)"
        keep = "np.isfinite(y).reshape(len(y), -1).all(axis=1)"
        return f"import numpy as np\nkeep = {keep}\nx, y = x[keep], y[keep]"


@dataclass(frozen=True, slots=True)
class SetBias(Remedy):
    """Start the bias of the last layer at the mean of all the targets."""

    layers: tuple[str, ...] = ()
    """Paths of the layers whose bias it is."""

    @property
    def code(self) -> str:
        """Assigns the initializer to `bias_initializer`."""
        lines = [_ALL.format(name="y", data="targets"), "import keras", "import numpy as np"]
        return "\n".join([*lines, "bias_initializer = keras.initializers.Constant(float(np.mean(y)))"])


@dataclass(frozen=True, slots=True)
class LearningRate(Remedy):
    """Train with another learning rate."""

    value: float

    @property
    def code(self) -> str:
        """Sets it in the optimizer of `model`."""
        return f"model.optimizer.learning_rate = {literal(self.value)}"


@dataclass(frozen=True, slots=True)
class Policy(Remedy):
    """Build the model again under another dtype policy: a model that is built keeps its own."""

    name: str
    """As `mixed_bfloat16`."""

    @property
    def code(self) -> str:
        """Sets it, before the model is built."""
        return f"import keras\nkeras.config.set_dtype_policy({literal(self.name)})  # before the model is built"


@dataclass(frozen=True, slots=True)
class Together(Remedy):
    """Several changes that repair a model only together."""

    remedies: tuple[Remedy, ...] = ()
    """In the order in which to make them."""

    @property
    def code(self) -> str:
        """The code of each, in this order."""
        return "\n".join(remedy.code for remedy in self.remedies)


REMEDIES: Mapping[str, type[Remedy]] = {
    kind.__name__: kind
    for kind in (
        Reinitialize,
        PlainNormalization,
        Activate,
        Widen,
        WholeModel,
        Preprocess,
        ScaleTargets,
        CleanData,
        SetBias,
        LearningRate,
        Policy,
        Together,
    )
}
"""Every remedy by its name, which is its `type` in JSON."""


def literal(value: Any) -> str:
    """A JSON value as Python source: text in double quotes where that is possible, a list as a tuple."""
    if isinstance(value, str):
        text = repr(value)
        plain = text.startswith("'") and '"' not in text
        return '"' + text[1:-1].replace("\\'", "'") + '"' if plain else text
    if isinstance(value, list | tuple):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return repr(value)
