"""Layer-sequential tuning: one forward pass in which each layer is given its size before its output goes on.

Each layer's `call` is replaced on the instance for the length of that pass. When a layer is called for the first time,
its pre-activations are measured, its kernels scaled (and, in front of an activation that is flat at both ends, its bias
set so that they are centred), and what goes on is what the layer gives then. So one pass serves a network of any depth.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from ..layers.inside import layers_below, with_layers_below
from ..observe.hooks import replaced
from ..progress import Progress

_PASSES = 3  # a linear map is right after one; a Keras layer in half precision may need the second
_CLOSE = 0.02


@dataclass(eq=False)
class Tuned:
    """One layer that is to be tuned."""

    owner: Any
    """The layer that has the kernels; of a recurrent layer, the cell."""
    target: float
    """Wanted rms of the pre-activations."""
    centred: bool
    """Whether each unit's mean is to be 0 as well."""
    kernels: list[Any] = field(default_factory=list)
    """Kernels that are scaled, each by its part of the factor."""


def tune(model: Any, x: Any, wanted: list[Tuned], progress: Progress) -> None:
    """Scales the kernels of a model, layer by layer in the order of their calls, to the sizes that are wanted.

    Args:
        model: A built model; kernels and biases of the wanted layers are changed, nothing else.
        x: A batch of its inputs.
        wanted: The layers; one that the model does not call is left as it is.
        progress: Called at each layer, with the layers tuned and the number of all.
    """
    hooks = _hooks(model)
    with contextlib.ExitStack() as stack:
        tell = functools.partial(_tell, itertools.count(1), len(wanted), progress)
        for tuned in wanted:
            layer = hooks.get(id(tuned.owner), tuned.owner)
            stack.enter_context(replaced(layer, "call", _tuning(layer, layer.call, tuned, tell)))
        model(x, training=False)


def _tell(done: Iterator[int], total: int, progress: Progress) -> None:
    progress(next(done), total)


def _hooks(model: Any) -> dict[int, Any]:
    """Inner layer -> the layer whose call stands for it: a cell runs in its layer's loop, a wrapped layer in a map."""
    found: dict[int, Any] = {}
    for layer in with_layers_below(model):
        if isinstance(layer, keras.layers.RNN | keras.layers.TimeDistributed):
            found |= {id(inner): layer for inner in layers_below(layer)}
    return found


def _tuning(layer: Any, call: Callable[..., Any], tuned: Tuned, tell: Callable[[], None]) -> Callable[..., Any]:
    done = False

    def observed(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        if not done:
            done = True
            for _ in range(_PASSES):
                if _adjust(tuned, _preactivations(layer, call, tuned, args, kwargs)):
                    break
            tell()
        return call(*args, **kwargs)

    return observed


def _preactivations(layer: Any, call: Callable[..., Any], tuned: Tuned, args: Any, kwargs: Any) -> Any:
    if isinstance(layer, keras.layers.RNN):
        return _gate_inputs(tuned, args[0] if args else kwargs["sequence"])
    seen: list[Any] = []
    activation = getattr(tuned.owner, "activation", None)
    if not callable(activation):
        return keras.tree.flatten(call(*args, **kwargs))[0]

    def entered(z: Any, *more: Any, **options: Any) -> Any:
        seen.append(z)
        return activation(z, *more, **options)

    with replaced(tuned.owner, "activation", entered):
        output = keras.tree.flatten(call(*args, **kwargs))[0]
    if len(seen) > 1:  # a wrapped layer, called once a time step
        return ops.concatenate([ops.reshape(z, (-1, z.shape[-1])) for z in seen])
    return seen[0] if seen else output  # a layer may have an activation and apply it otherwise


def _gate_inputs(tuned: Tuned, sequence: Any) -> Any:
    """What the input kernel of a recurrent layer hands to the gates; of a convolutional one, about that."""
    kernel = tuned.kernels[0]
    if len(kernel.shape) == 2 and tuple(sequence.shape)[-1] == kernel.shape[0]:
        return ops.matmul(ops.cast(sequence, "float32"), ops.cast(kernel.value, "float32"))
    frames = ops.reshape(sequence, (-1, *sequence.shape[2:]))
    strides = getattr(tuned.owner, "strides", 1)
    return ops.conv(ops.cast(frames, "float32"), ops.cast(kernel.value, "float32"), strides=strides, padding="same")


def _adjust(tuned: Tuned, value: Any) -> bool:
    """One step towards the target; whether it is reached, or cannot be."""
    try:
        z = np.asarray(ops.convert_to_numpy(ops.cast(value, "float32")), dtype=np.float64)
    except Exception:  # a value inside of a traced loop has no number
        return True
    bias = getattr(tuned.owner, "bias", None)
    if not (tuned.centred and isinstance(bias, keras.Variable) and tuple(bias.shape) == z.shape[-1:]):
        bias = None
    mean = np.zeros(1) if bias is None else z.reshape(-1, z.shape[-1]).mean(axis=0)
    rms = float(np.sqrt(np.mean((z - mean) ** 2)))
    if not np.isfinite(rms) or rms < 1e-30:
        return True
    factor = tuned.target / rms
    if abs(factor - 1.0) < _CLOSE and float(np.sqrt(np.mean(mean**2))) < _CLOSE * tuned.target:
        return True
    share = factor ** (1.0 / len(tuned.kernels))
    for kernel in tuned.kernels:
        kernel.assign(ops.cast(ops.cast(kernel.value, "float32") * share, kernel.dtype))
    if bias is not None:
        old = ops.convert_to_numpy(ops.cast(bias.value, "float32"))
        bias.assign(ops.cast(factor * (old - mean), bias.dtype))
    return False
