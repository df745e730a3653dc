"""Which kernels start with the units of another one: by their columns, whatever the shape, up to a factor."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initaudit.observe.duplicates import repeated


def seeded(seed, kind=keras.initializers.HeNormal):
    return kind(seed=seed)


def built(layer, *shape):
    layer.build((None, *shape))
    return layer, layer.kernel


def dense(inputs, units, initializer):
    return built(layers.Dense(units, kernel_initializer=initializer), inputs)


def heads(equation, *output):
    """A projection onto attention heads, all of one seed."""
    return built(layers.EinsumDense(equation, (None, *output), kernel_initializer=seeded(3)), 8, 64)


def test_a_kernel_of_another_shape_has_the_same_numbers_in_other_places():
    """One seed fills the rows one after the other: no unit of one is a unit of the other."""
    kernels = {"a": dense(64, 96, seeded(1)), "b": dense(96, 48, seeded(1)), "c": dense(64, 48, seeded(1))}
    numbers = [np.ravel(kernel)[:64] for _, kernel in kernels.values()]
    assert np.corrcoef(numbers).min() == pytest.approx(1.0)
    assert repeated(kernels) == {}
    assert repeated(kernels | {"d": dense(64, 96, seeded(1))}) == {"d": "a"}


def test_a_factor_makes_no_difference():
    kernels = {"a": dense(64, 64, seeded(1)), "b": dense(64, 64, seeded(1, keras.initializers.GlorotNormal))}
    kernels["c"] = dense(64, 64, seeded(2))
    kernels["d"] = dense(64, 64, "he_normal")
    kernels["d"][1].assign(-0.3 * kernels["c"][1])
    assert repeated(kernels) == {"b": "a", "d": "c"}
    kernels["d"][1].assign(kernels["c"][1] + 1e-4 * kernels["a"][1])
    assert repeated(kernels) == {"b": "a"}


def test_whole_heads_of_query_are_those_of_key_where_heads_come_first():
    query, key = heads("btd,ndh->btnh", 4, 16), heads("btd,ndh->btnh", 1, 16)
    value, output = heads("btd,ndh->btnh", 1, 16), heads("btd,ndh->btnh", 2, 16)
    assert repeated({"query": query, "key": key, "value": value}) == {"key": "query", "value": "query"}
    assert repeated({"key": key, "query": query}) == {"query": "key"}  # in whatever order they are called
    assert repeated({"key": key, "output": output}) == {"output": "key"}
    # Where the inputs come first, another number of heads puts the numbers elsewhere.
    query, key, value = (heads("btd,dnh->btnh", n, 16) for n in (4, 2, 2))
    assert repeated({"query": query, "key": key, "value": value}) == {"value": "key"}


def test_convolutions_are_compared_in_the_orientation_of_their_units():
    def convolution(kind, filters):
        return built(kind(filters, 3, kernel_initializer=seeded(5)), 8, 8, 16)

    kernels = {"a": convolution(layers.Conv2D, 16), "b": convolution(layers.Conv2DTranspose, 16)}
    assert repeated(kernels) == {}  # the same numbers, turned round
    kernels["c"] = convolution(layers.Conv2D, 16)
    kernels["d"] = convolution(layers.Conv2DTranspose, 16)
    assert repeated(kernels) == {"c": "a", "d": "b"}


@pytest.mark.parametrize("start", ["ones", "zeros", "identity", keras.initializers.Constant(0.3)])
def test_what_was_not_drawn_is_nobodys_copy(start):
    assert repeated({name: dense(32, 32, start) for name in "abc"}) == {}


def test_large_kernels_are_looked_at_where_they_lie():
    kernels = {"a": dense(300, 400, seeded(1)), "b": dense(300, 400, seeded(2)), "c": dense(300, 400, seeded(1))}
    assert repeated(kernels) == {"c": "a"}


def test_small_kernels_may_agree_by_chance():
    assert repeated({name: dense(8, 4, seeded(1)) for name in "ab"}) == {}
    assert repeated({name: dense(8, 8, seeded(1)) for name in "ab"}) == {"b": "a"}
    assert repeated({"a": dense(1, 64, seeded(1)), "b": dense(1, 64, seeded(2))}) == {}


def test_many_kernels_of_two_seeds_are_two_groups():
    found = repeated({f"l{i}": dense(32, 32, seeded(i % 2)) for i in range(40)})
    assert len(found) == 38
    assert all(first == f"l{int(path[1:]) % 2}" for path, first in found.items())
