"""Schemes that make a matrix of a certain structure: Orthogonal, DeltaOrthogonal, Identity, Sparse.

A kernel is read as a matrix of inputs x outputs (of several where it has gates, groups or batch axes), the matrix is
made, and its entries are put where they belong: from the axes where they are given, else the last axis is the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_initaudit.initializers.base import real, register, whole
from keras_initaudit.initializers.scaling import AxesScheme, amount, size

Make = Callable[[int, int, int], Any]
"""(how many, rows, columns) -> tensor [how many, rows, columns]."""


Axes = tuple[list[int] | None, list[int] | None]
"""Input and output axes of a kernel."""


def assemble(shape: tuple[int, ...], axes: Axes, blocks: int, delta: bool, make: Make) -> Any:
    """A kernel of that shape from matrices of inputs x outputs.

    Args:
        shape: Of the kernel; a vector counts as a matrix of one column.
        axes: What is in neither numbers separate matrices; what is in both is the field of a convolution.
        blocks: The outputs are so many equal parts, each with its own matrix.
        delta: Whether only the centre of the field is not 0; otherwise the field counts as input.
        make: Makes the matrices.
    """
    field, inputs, outputs = _sides(shape, axes, delta)
    batch = [axis for axis in range(len(shape)) if axis not in field + inputs + outputs]
    count, rows, columns = (math.prod(shape[axis] for axis in chosen) for chosen in (batch, inputs, outputs))
    if columns % blocks:
        raise ValueError(f"`blocks` must divide the outputs of the kernel. Received: blocks={blocks} for {columns}.")
    value = make(count * blocks, rows, columns // blocks)
    if blocks > 1:
        value = ops.transpose(ops.reshape(value, (count, blocks, rows, columns // blocks)), (0, 2, 1, 3))
    order = field + batch + inputs + outputs
    value = ops.reshape(value, [1] * len(field) + [shape[axis] for axis in order[len(field) :]])
    if order != sorted(order):
        value = ops.transpose(value, [order.index(axis) for axis in range(len(shape))])
    if not field:
        return value
    # Padding "same" has the centre of an even field before its middle.
    return ops.pad(
        value,
        [
            ((shape[axis] - 1) // 2, shape[axis] // 2) if axis in field else (0, 0)  # together one less than the field
            for axis in range(len(shape))
        ],
    )


def _sides(shape: tuple[int, ...], axes: Axes, delta: bool) -> tuple[list[int], list[int], list[int]]:
    """Field, input and output axes of a kernel."""
    rank = len(shape)
    if axes[0] is None or axes[1] is None:
        inputs, outputs = (list(range(rank - 1)), [rank - 1]) if rank > 1 else (list(range(rank)), [])
        field = inputs[:-1] if delta else []
    else:
        for chosen in axes:
            size(shape, chosen or [])  # refuses an axis that is not there
        inputs, outputs = ([axis % rank for axis in chosen] for chosen in axes if chosen is not None)
        field = [axis for axis in inputs if axis in outputs] if delta else []
        outputs = [axis for axis in outputs if axis not in inputs]
    return field, [axis for axis in inputs if axis not in field], outputs


class _MatrixScheme(AxesScheme):
    """A scheme of one matrix, times a gain."""

    _delta = False

    def __init__(self, gain: Any, blocks: int, seed: Any, input_axes: Any, output_axes: Any) -> None:
        super().__init__(seed, input_axes, output_axes)
        self.gain, self._gain = amount(gain)
        self.blocks = whole(blocks, "blocks")

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        axes = (self.input_axes, self.output_axes)
        if math.prod(shape) == 0:
            return ops.zeros(shape, dtype=dtype)
        return assemble(
            shape,
            axes,
            self.blocks,
            self._delta,
            lambda *sizes: self._times_gain(self._make(sizes, dtype)),
        )

    def _times_gain(self, value: Any) -> Any:
        return value if self._gain == 1.0 else self._gain * value

    def _make(self, sizes: tuple[int, int, int], dtype: str) -> Any:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        return {"gain": self.gain, "blocks": self.blocks, **super().get_config()}


@register
class Orthogonal(_MatrixScheme):
    """A random orthogonal matrix times a gain: Q Q^T = 1 (rows <= columns) or Q^T Q = 1, uniform over all such Q.

    Every singular value of the kernel, as a matrix of inputs x outputs, is the gain: a deep linear network keeps every
    signal and every gradient, a recurrent one keeps its state. Made of Householder reflections of normal vectors,
    which is half the work of a QR decomposition and all of it matrix products.

    Args:
        gain: A number, or an activation (name, layer or callable) whose exact gain is taken.
        blocks: The outputs are so many parts, each orthogonal: 4 for the recurrent kernel of an LSTM, 3 of a GRU, the
            groups of a grouped convolution.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None for all but the last. EinsumDense and the attention
            layers say theirs by themselves (Keras 3.15 and newer).
        output_axes: Axes of the kernel that make the outputs; None for the last.

    Example:
        >>> kernel = keras.ops.convert_to_numpy(Orthogonal(blocks=4, seed=1)((3, 12)))
        >>> np.linalg.svd(kernel[:, :3])[1].round(4)
        array([1., 1., 1.], dtype=float32)

    Reference:
        Saxe et al. 2014, section 3, https://arxiv.org/abs/1312.6120; Stewart 1980 and Mezzadri 2007 (the algorithm).
    """

    def __init__(
        self, gain: Any = 1.0, blocks: int = 1, seed: Any = None, input_axes: Any = None, output_axes: Any = None
    ) -> None:
        super().__init__(gain, blocks, seed, input_axes, output_axes)

    def _make(self, sizes: tuple[int, int, int], dtype: str) -> Any:
        count, rows, columns = sizes
        normal = keras.random.normal(
            (count, max(rows, columns), min(rows, columns)), dtype=dtype, seed=self.next_seed()
        )
        value = reflections(normal)
        return value if rows >= columns else ops.transpose(value, (0, 2, 1))


@register
class DeltaOrthogonal(Orthogonal):
    """A convolution that is an orthogonal map: an orthogonal matrix at the centre of the kernel, 0 elsewhere.

    The singular values of the whole convolution (stride 1, any field, 1D to 3D) all equal the gain, so that plain
    convolutional nets of thousands of layers keep their signal; those of an `Orthogonal` kernel do not.

    Args:
        gain: A number, or an activation (name, layer or callable) whose exact gain is taken.
        blocks: Groups of a grouped convolution.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None for the last but one (and the field).
        output_axes: Axes of the kernel that make the outputs; None for the last.

    Example:
        >>> kernel = DeltaOrthogonal(seed=1)((3, 3, 8, 8))
        >>> float(keras.ops.max(keras.ops.abs(kernel[0])))
        0.0

    Reference:
        Xiao et al. 2018, section 2.4, https://arxiv.org/abs/1806.05393.
    """

    _delta = True


@register
class Identity(_MatrixScheme):
    """The identity: output i starts as input i times the gain; a Dirac delta for a convolution.

    Where there are more outputs than inputs the rest are 0, where there are fewer the rest of the inputs are dropped. A
    vector, which scales units, is all ones.

    Args:
        gain: A number, or an activation (name, layer or callable) whose exact gain is taken.
        blocks: The outputs are so many parts, each the identity: the groups of a grouped convolution, or gates.
        input_axes: Axes of the kernel that are summed over; None for the last but one (and the field).
        output_axes: Axes of the kernel that make the outputs; None for the last.

    Example:
        >>> keras.ops.convert_to_numpy(Identity()((3, 1, 1)))[:, 0, 0]
        array([0., 1., 0.], dtype=float32)

    Reference:
        Le et al. 2015, section 2 (recurrent), https://arxiv.org/abs/1504.00941.
    """

    _delta = True

    def __init__(self, gain: Any = 1.0, blocks: int = 1, input_axes: Any = None, output_axes: Any = None) -> None:
        super().__init__(gain, blocks, 0, input_axes, output_axes)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Identity:
        """The initializer of that config; EinsumDense puts a seed in, which there is no use for."""
        return cls(**{key: value for key, value in config.items() if key != "seed"})

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        return super()._values(shape, dtype) if len(shape) > 1 else ops.full(shape, self._gain, dtype=dtype)

    def _make(self, sizes: tuple[int, int, int], dtype: str) -> Any:
        count, rows, columns = sizes
        one = ops.eye(rows, columns, dtype=dtype)[None]
        return one if count == 1 else ops.tile(one, (count, 1, 1))

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        config = super().get_config()
        del config["seed"]
        return config


@register
class Sparse(AxesScheme):
    """Each output unit is fed by a few inputs only: `connections` weights of N(0, gain^2 / connections), the rest 0.

    Args:
        connections: Weights that are not 0, of each output; all of them where the kernel has fewer. 15 by default.
        sparsity: Instead of `connections`, the fraction of the weights of each output that is 0, in [0, 1).
        gain: An activation (name, layer or callable), a number, or None for 1.
        stddev: Standard deviation of the weights that are not 0; None for gain / sqrt(connections), which keeps the
            size of the signal.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None for all but the last.
        output_axes: Axes of the kernel that make the outputs; None for the last.

    Example:
        >>> kernel = Sparse(connections=3, seed=1)((10, 4))
        >>> np.count_nonzero(keras.ops.convert_to_numpy(kernel), axis=0)
        array([3, 3, 3, 3])

    Reference:
        Martens 2010, section 5, https://www.cs.toronto.edu/~jmartens/docs/Deep_HessianFree.pdf.
    """

    def __init__(
        self,
        connections: int | None = None,
        sparsity: float | None = None,
        gain: Any = None,
        stddev: float | None = None,
        seed: Any = None,
        input_axes: Any = None,
        output_axes: Any = None,
    ) -> None:
        super().__init__(seed, input_axes, output_axes)
        if connections is not None and sparsity is not None:
            raise ValueError(
                "Give `connections` or `sparsity`, not both. "
                f"Received: connections={connections!r}, sparsity={sparsity!r}."
            )
        self.connections = None if connections is None else whole(connections, "connections")
        self.sparsity = None if sparsity is None else real(sparsity, "sparsity", least=0.0)
        if self.sparsity is not None and self.sparsity >= 1.0:
            raise ValueError(f"`sparsity` must be below 1: with it, no weight would be left. Received: {sparsity!r}.")
        self.stddev = None if stddev is None else real(stddev, "stddev", above=0.0)
        if gain is not None and stddev is not None:
            raise ValueError(f"Give `gain` or `stddev`, not both. Received: gain={gain!r}, stddev={stddev!r}.")
        self.gain, self._gain = amount(gain)

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        if math.prod(shape) == 0:
            return ops.zeros(shape, dtype=dtype)
        return assemble(shape, (self.input_axes, self.output_axes), 1, False, lambda *sizes: self._make(sizes, dtype))

    def _make(self, sizes: tuple[int, int, int], dtype: str) -> Any:
        rows = sizes[1]
        if self.sparsity is None:
            kept = min(self.connections or 15, rows)
        else:
            kept = max(1, rows - math.ceil(self.sparsity * rows))
        std = self._gain / math.sqrt(kept) if self.stddev is None else self.stddev
        # The rank of a random number is a random permutation: exactly `kept` of each column, whatever ties.
        rank = ops.argsort(ops.argsort(keras.random.uniform(sizes, seed=self.next_seed("which")), axis=1), axis=1)
        normal = keras.random.normal(sizes, 0.0, std, dtype=dtype, seed=self.next_seed("weights"))
        return ops.where(rank < kept, normal, ops.zeros_like(normal))

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        own = {name: getattr(self, name) for name in ("connections", "sparsity", "gain", "stddev")}
        return {**own, **super().get_config()}


_PANEL = 256  # reflections that are applied together: wide enough for matrix products to dominate


def reflections(normal: Any) -> Any:
    """Uniformly distributed orthonormal columns, of the shape [count, rows, columns] of the normal numbers.

    Column j of the numbers, from row j down, is the vector that the Householder QR decomposition of a normal matrix
    would meet there: by the symmetry of the normal law it has the same distribution. So the vectors can be drawn at
    once, and only the product H_1 H_2 ... H_n is left to compute, panel by panel as 1 - V T V^T.
    """
    count, rows, columns = normal.shape
    below = ops.tril(normal)
    pivot = ops.diagonal(normal, axis1=1, axis2=2)
    sign = ops.where(pivot < 0, -ops.ones_like(pivot), ops.ones_like(pivot))
    norm = ops.sqrt(ops.sum(ops.square(below), axis=1))
    wide = ops.eye(rows, columns, dtype=normal.dtype)[None]
    # v_j = x + sign |x| e_j, scaled so that H_j = 1 - v_j v_j^T; it maps x to -sign |x| e_j.
    vectors = (below + wide * (sign * norm)[:, None, :]) / ops.sqrt(norm * (norm + ops.abs(pivot)))[:, None, :]
    result = wide * ops.ones((count, 1, 1), dtype=normal.dtype)
    for start in reversed(range(0, columns, _PANEL)):
        stop = min(start + _PANEL, columns)
        v = vectors[:, start:, start:stop]
        product = ops.matmul(ops.transpose(v, (0, 2, 1)), v)
        factor = ops.triu(product, k=1) + ops.eye(stop - start, dtype=normal.dtype)  # T^-1, from V^T V
        # What is left of, and above, `start` is still that of the identity.
        part = result[:, start:, start:]
        part = part - ops.matmul(v, ops.solve_triangular(factor, ops.matmul(ops.transpose(v, (0, 2, 1)), part)))
        result = (
            part
            if start == 0
            else ops.concatenate(
                [result[:, :start], ops.concatenate([result[:, start:, :start], part], axis=2)], axis=1
            )
        )
    return result * -sign[:, None, :]
