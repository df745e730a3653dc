"""Every scheme: its law, to five standard errors; seeds, precision, files, odd shapes; and what it is made for."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initaudit as ki
from keras_initaudit.initializers.scaling import MODES, TRUNCATED_STD
from keras_initaudit.theory.gains import gain

BACKEND = keras.backend.backend()
PACKAGE = str(Path(__file__).parents[2])


def numbers(initializer, shape, dtype="float32"):
    value = initializer(shape, dtype=dtype)
    return np.asarray(ops.convert_to_numpy(ops.cast(value, "float32")), np.float64)


def assert_moments(values, variance, kurtosis=3.0):
    """Mean 0 and the variance, each to five standard errors of n independent draws."""
    n = values.size
    assert abs(values.mean()) <= 5 * math.sqrt(variance / n)
    # Var of the sample variance is variance^2 (kurtosis - 1) / n.
    assert abs(values.var() / variance - 1) <= 5 * math.sqrt((kurtosis - 1) / n)


# Kurtosis of the uniform law, and of a normal one cut at two standard deviations.
KURTOSIS = {"normal": 3.0, "uniform": 1.8, "truncated_normal": 2.36}

# scheme -> variance of its weights, for (fan_in, fan_out).
LAWS = {
    "RandomNormal": (lambda: ki.RandomNormal(stddev=0.2, seed=1), lambda i, o: 0.04, "normal"),
    "RandomUniform": (lambda: ki.RandomUniform(-0.3, 0.3, seed=2), lambda i, o: 0.03, "uniform"),
    "TruncatedNormal": (
        lambda: ki.TruncatedNormal(stddev=0.2, seed=3),
        lambda i, o: 0.04 * TRUNCATED_STD**2,
        "truncated_normal",
    ),
    "VarianceScaling": (lambda: ki.VarianceScaling(3.0, seed=4), lambda i, o: 3 / i, "normal"),
    "VarianceScaling(gain)": (
        lambda: ki.VarianceScaling(gain="gelu", distribution="uniform", seed=5),
        lambda i, o: 2.351716577 / i,
        "uniform",
    ),
    "GlorotNormal": (lambda: ki.GlorotNormal(seed=6), lambda i, o: 2 / (i + o), "normal"),
    "GlorotNormal(truncated)": (
        lambda: ki.GlorotNormal(truncated=True, seed=7),
        lambda i, o: 2 / (i + o),
        "truncated_normal",
    ),
    "GlorotNormal(fan_sum)": (lambda: ki.GlorotNormal(mode="fan_sum", seed=8), lambda i, o: 1 / (i + o), "normal"),
    "GlorotUniform": (lambda: ki.GlorotUniform(seed=9), lambda i, o: 2 / (i + o), "uniform"),
    "HeNormal": (lambda: ki.HeNormal(seed=10), lambda i, o: 2 / i, "normal"),
    "HeNormal(truncated)": (lambda: ki.HeNormal(truncated=True, seed=11), lambda i, o: 2 / i, "truncated_normal"),
    "HeNormal(fan_out)": (lambda: ki.HeNormal(mode="fan_out", seed=12), lambda i, o: 2 / o, "normal"),
    "HeUniform": (lambda: ki.HeUniform(seed=13), lambda i, o: 2 / i, "uniform"),
    "LeCunNormal": (lambda: ki.LeCunNormal(seed=14), lambda i, o: 1 / i, "normal"),
    "LeCunUniform": (lambda: ki.LeCunUniform(seed=15), lambda i, o: 1 / i, "uniform"),
    "DepthScaled": (lambda: ki.DepthScaled(16, seed=16), lambda i, o: 2 / i / 16, "normal"),
}

OTHERS = {
    "Zeros": ki.Zeros,
    "Orthogonal": lambda: ki.Orthogonal(seed=21),
    "DeltaOrthogonal": lambda: ki.DeltaOrthogonal(seed=22),
    "Identity": ki.Identity,
    "Sparse": lambda: ki.Sparse(seed=23),
    "ICNR": lambda: ki.ICNR(ki.HeNormal(seed=24)),
}
ALL = {**{name: law[0] for name, law in LAWS.items()}, **OTHERS}

# shape -> (fan_in, fan_out) that a scheme of the variance-scaling family reads off it.
SHAPES = {
    "2D": ((200, 300), (200, 300)),
    "conv": ((3, 3, 60, 120), (540, 1080)),
    "depthwise": ((5, 5, 400, 4), (10000, 100)),
    "einsum": ((60, 10, 80), (600, 4800)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", LAWS)
def test_moments(name, kind, dtype):
    make, variance, law = LAWS[name]
    shape, fans = SHAPES[kind]
    values = numbers(make(), shape, dtype)
    # Rounding to half precision adds 2^-16 (bfloat16) of the variance at most, far inside the error.
    assert_moments(values, variance(*fans), KURTOSIS[law])


@pytest.mark.parametrize(
    ("scheme", "fans", "wrong"),
    [
        (ki.HeNormal(seed=1), (200, 300), lambda i, o: 2 / o),
        (ki.GlorotNormal(seed=1), (200, 300), lambda i, o: 2 / i),
        (ki.GlorotNormal(seed=1), (200, 300), lambda i, o: 1 / (i + o)),
        (ki.LeCunNormal(seed=1), (200, 300), lambda i, o: 2 / i),
        (ki.VarianceScaling(gain="gelu", seed=1), (200, 300), lambda i, o: 2 / i),
        (ki.VarianceScaling(mode="fan_geo_avg", seed=1), (90, 1000), lambda i, o: 2 / (i + o)),
    ],
)
def test_the_tolerance_tells_the_wrong_fan_gain_and_mode_from_the_right_one(scheme, fans, wrong):
    with pytest.raises(AssertionError):
        assert_moments(numbers(scheme, fans), wrong(*fans))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("distribution", KURTOSIS)
def test_every_mode_and_distribution(mode, distribution):
    n = {"fan_in": 90, "fan_out": 1000, "fan_avg": 545, "fan_sum": 1090, "fan_geo_avg": math.sqrt(90_000)}[mode]
    scheme = ki.VarianceScaling(2.0, mode, distribution, seed=3)
    assert scheme.variance((90, 1000)) == pytest.approx(2.0 / n, rel=1e-12)
    assert_moments(numbers(scheme, (90, 1000)), 2.0 / n, KURTOSIS[distribution])


def test_the_worked_example_of_three_inputs_and_two_outputs():
    variances = [
        scheme.variance((3, 2))
        for scheme in (ki.GlorotNormal(), ki.GlorotNormal(mode="fan_sum"), ki.HeNormal(), ki.LeCunNormal())
    ]
    assert variances == pytest.approx([0.4, 0.2, 2 / 3, 1 / 3])


def test_bounds():
    shape = (300, 200)
    assert np.abs(numbers(ki.GlorotUniform(seed=1), shape)).max() <= math.sqrt(6 / 500)
    assert np.abs(numbers(ki.HeUniform(seed=1), shape)).max() <= math.sqrt(6 / 300)
    assert np.abs(numbers(ki.LeCunUniform(seed=1), shape)).max() <= math.sqrt(3 / 300)
    assert np.abs(numbers(ki.TruncatedNormal(stddev=0.1, seed=1), shape)).max() <= 0.2 + 1e-6
    cut = 2 * math.sqrt(2 / 300) / TRUNCATED_STD
    assert np.abs(numbers(ki.HeNormal(truncated=True, seed=1), shape)).max() <= cut * (1 + 1e-6)
    # Of 60 000 normal numbers 2700 are beyond two standard deviations: the default is not cut.
    assert np.abs(numbers(ki.HeNormal(seed=1), shape)).max() > cut
    values = numbers(ki.RandomUniform(1.0, 2.0, seed=1), shape)
    assert values.min() >= 1.0
    assert values.max() <= 2.0


def test_gains_are_taken_by_name_layer_callable_and_number():
    wanted = gain("leaky_relu(0.1)") ** 2 / 50
    for given in ("leaky_relu(0.1)", layers.LeakyReLU(negative_slope=0.1), gain("leaky_relu(0.1)")):
        assert ki.HeNormal(gain=given).variance((50, 20)) == pytest.approx(wanted, rel=1e-9)
    assert ki.HeNormal(gain=layers.LeakyReLU(negative_slope=0.1)).get_config()["gain"] == "leaky_relu(0.1)"

    def doubled(x):
        return 2.0 * x

    # A function of one's own is kept as a number, so that the model loads without it.
    kept = ki.VarianceScaling(gain=doubled).get_config()["gain"]
    assert kept == pytest.approx(0.5, rel=1e-4)
    with pytest.raises(ValueError, match="has no gain"):
        ki.HeNormal(gain="softmax")


def test_axes_say_which_fans_count():
    depthwise = ki.HeNormal(input_axes=[0, 1], output_axes=[0, 1, 3], seed=1)
    assert depthwise.variance((5, 5, 400, 4)) == pytest.approx(2 / 25)
    assert_moments(numbers(depthwise, (5, 5, 400, 4)), 2 / 25)
    experts = ki.GlorotNormal(input_axes=[1], output_axes=[2])
    assert experts.variance((8, 30, 50)) == pytest.approx(2 / 80)
    assert ki.GlorotNormal(input_axes=[-2], output_axes=[-1]).variance((8, 30, 50)) == pytest.approx(2 / 80)
    with pytest.raises(ValueError, match="must be axes of the kernel"):
        ki.GlorotNormal(input_axes=[5], output_axes=[0])((3, 3))


# --- odd shapes and dtypes


@pytest.mark.parametrize("shape", [(), (5,), (0,), (0, 4), (4, 0), (3, 3, 0, 4), (1, 1), (2, 3, 2, 2, 4)])
@pytest.mark.parametrize("name", ALL)
def test_odd_shapes_are_filled_and_not_refused(name, shape):
    if name == "ICNR" and len(shape) == 5:
        shape = (*shape[:-1], 8)
    if name == "ICNR" and shape == (1, 1):
        with pytest.raises(ValueError, match="must divide the filters"):
            ALL[name]()(shape)
        return
    value = ALL[name]()(shape)
    assert tuple(value.shape) == shape
    assert np.all(np.isfinite(ops.convert_to_numpy(value)))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ALL)
def test_dtypes_are_honoured_and_drawn_as_in_float32(name, dtype):
    if dtype == "float64" and BACKEND == "jax":
        pytest.skip("JAX has no float64 unless it is told so for the whole process")
    value = ALL[name]()((12, 8), dtype=dtype)
    assert keras.backend.standardize_dtype(value.dtype) == dtype
    if dtype != "float64":
        expected = ops.cast(ALL[name]()((12, 8), dtype="float32"), dtype)
        assert np.array_equal(
            ops.convert_to_numpy(ops.cast(value, "float32")), ops.convert_to_numpy(ops.cast(expected, "float32"))
        )


def test_a_bfloat16_draw_has_no_bias():
    values = numbers(ki.RandomNormal(stddev=1.0, seed=5), (2000, 500), "bfloat16")
    assert abs(values.mean()) < 5 / math.sqrt(values.size)


# --- seeds


RANDOM = [name for name in ALL if name not in ("Zeros", "Identity", "ICNR")]


@pytest.mark.parametrize("name", RANDOM)
def test_an_integer_seed_repeats_itself(name):
    first = ALL[name]()
    assert np.array_equal(numbers(first, (8, 12)), numbers(first, (8, 12)))
    assert np.array_equal(numbers(first, (8, 12)), numbers(ALL[name](), (8, 12)))
    other = type(first).from_config({**first.get_config(), "seed": 999})
    assert not np.array_equal(numbers(first, (8, 12)), numbers(other, (8, 12)))


@pytest.mark.parametrize("name", RANDOM)
def test_without_a_seed_each_call_differs_and_follows_from_the_global_one(name):
    def draw():
        keras.utils.set_random_seed(7)
        config = ALL[name]().get_config()
        scheme = type(ALL[name]()).from_config({**config, "seed": None})
        if name == "DepthScaled":
            scheme = ki.DepthScaled(16)
        return numbers(scheme, (8, 12)), numbers(scheme, (8, 12))

    (first, second), (again, further) = draw(), draw()
    assert not np.array_equal(first, second)
    assert np.array_equal(first, again)
    assert np.array_equal(second, further)


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "DepthScaled"])
def test_a_seed_generator_goes_on_and_can_be_shared(name):
    config = ALL[name]().get_config()

    def draw(count):
        generator = keras.random.SeedGenerator(5)
        scheme = type(ALL[name]()).from_config({**config, "seed": generator})
        return [numbers(scheme, (8, 12)) for _ in range(count)]

    first, second = draw(2)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, draw(1)[0])


@pytest.mark.parametrize("generator", [False, True], ids=["integer", "generator"])
def test_one_seed_in_two_schemes_gives_unrelated_weights(generator):
    made = [
        ki.RandomNormal,
        ki.RandomUniform,
        ki.TruncatedNormal,
        ki.VarianceScaling,
        ki.GlorotNormal,
        ki.GlorotUniform,
        ki.HeNormal,
        ki.HeUniform,
        ki.LeCunNormal,
        ki.LeCunUniform,
        ki.Sparse,
    ]
    drawn = []
    for kind in made:
        seed = keras.random.SeedGenerator(3) if generator else 3
        drawn.append(numbers(kind(seed=seed), (100, 100)).ravel())
    for one, other in itertools.combinations(drawn, 2):
        # The correlation of 10 000 independent pairs has a standard error of 0.01.
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
    same = numbers(ki.HeNormal(seed=3), (100, 100)).ravel()
    if not generator:
        assert np.corrcoef(drawn[6], same)[0, 1] > 0.999


def test_seeds_are_checked():
    for wrong in ("3", 1.5, True, [1]):
        with pytest.raises(ValueError, match="`seed` must be"):
            ki.HeNormal(seed=wrong)
    assert np.array_equal(numbers(ki.HeNormal(seed=np.int64(3)), (4, 4)), numbers(ki.HeNormal(seed=3), (4, 4)))


def test_one_unseeded_instance_serves_many_layers():
    shared = ki.HeNormal()
    one, two = (layers.EinsumDense("ab,bc->ac", 6, kernel_initializer=shared) for _ in range(2))
    one.build((None, 6))
    two.build((None, 6))
    assert not np.array_equal(ops.convert_to_numpy(one.kernel), ops.convert_to_numpy(two.kernel))


# --- serialization


@pytest.mark.parametrize("name", ALL)
def test_a_config_makes_the_same_scheme(name):
    scheme = ALL[name]()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(scheme)))
    assert config["registered_name"] == f"keras_initaudit>{type(scheme).__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(scheme)
    assert again.get_config() == scheme.get_config()
    assert np.array_equal(numbers(scheme, (8, 12)), numbers(again, (8, 12)))
    assert type(scheme.clone()) is type(scheme)
    assert name.split("(")[0] in repr(scheme)


FRESH = """
import sys
{imports}
model = keras.models.load_model(sys.argv[1])
names = [type(layer.kernel_initializer).__name__ for layer in model.layers]
again = keras.models.clone_model(model)
print(",".join(names), float(keras.ops.sum(keras.ops.abs(model.layers[0].kernel))))
values = [float(keras.ops.sum(keras.ops.abs(layer.kernel))) for layer in again.layers]
print(",".join(format(value, ".6g") for value in values))
"""


@pytest.mark.parametrize("order", ["import keras\nimport keras_initaudit", "import keras_initaudit\nimport keras"])
def test_a_saved_model_loads_in_a_fresh_process_and_draws_the_same(tmp_path, order):
    kinds = list(ALL)
    model = keras.Sequential([keras.Input((12,))])
    for index, name in enumerate(kinds):
        model.add(layers.Dense(12, kernel_initializer=ALL[name](), name=f"layer_{index}"))
    model.save(tmp_path / "model.keras")
    environment = {**os.environ, "PYTHONPATH": PACKAGE, "KERAS_BACKEND": BACKEND}
    run = subprocess.run(
        [sys.executable, "-c", FRESH.format(imports=order), str(tmp_path / "model.keras")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    first, second = run.stdout.strip().splitlines()[-2:]
    assert first.split()[0].split(",") == [type(ALL[name]()).__name__ for name in kinds]
    # Seeded schemes draw in the other process what they drew here.
    here = [format(float(ops.sum(ops.abs(layer.kernel))), ".6g") for layer in model.layers]
    assert [float(value) for value in second.split(",")] == pytest.approx([float(value) for value in here], rel=1e-4)


# --- layers that make their own copy


@pytest.mark.parametrize("name", ALL)
def test_attention_takes_every_scheme(name):
    if name == "ICNR":
        pytest.skip("for sub-pixel convolutions alone")
    layer = layers.MultiHeadAttention(2, 8, kernel_initializer=ALL[name]())
    layer.build((None, 5, 16), (None, 5, 16))
    assert tuple(layer.query_dense.kernel.shape) == (16, 2, 8)
    assert type(layer.query_dense.kernel_initializer) is type(ALL[name]())


TELLS_AXES = hasattr(keras.initializers.HeNormal(), "input_axes")  # EinsumDense does, from Keras 3.15 on


@pytest.mark.skipif(not TELLS_AXES, reason="this Keras does not tell its axes to initializers")
def test_attention_tells_the_schemes_its_axes():
    layer = layers.MultiHeadAttention(4, 64, kernel_initializer=ki.HeNormal(seed=1))
    layer.build((None, 5, 128), (None, 5, 128))
    assert_moments(numbers(lambda *_, **__: layer.query_dense.kernel, ()), 2 / 128)
    assert_moments(numbers(lambda *_, **__: layer.output_dense.kernel, ()), 2 / 256)
    layer = layers.MultiHeadAttention(4, 8, kernel_initializer=ki.Orthogonal(seed=1))
    layer.build((None, 5, 32), (None, 5, 32))
    for kernel in (layer.query_dense.kernel, layer.output_dense.kernel):
        matrix = ops.convert_to_numpy(kernel).reshape(32, 32)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(32), atol=1e-5)
    scaled = layers.MultiHeadAttention(4, 64, kernel_initializer=ki.DepthScaled(4, "sqrt", seed=1))
    scaled.build((None, 5, 128), (None, 5, 128))
    assert_moments(numbers(lambda *_, **__: scaled.query_dense.kernel, ()), 2 / 128 / 4)


def test_in_a_layer_the_weight_has_the_layers_dtype():
    layer = layers.Dense(4, kernel_initializer=ki.Orthogonal(seed=1), dtype="bfloat16")
    layer.build((None, 4))
    assert keras.backend.standardize_dtype(layer.kernel.dtype) == "bfloat16"


# --- orthogonal matrices


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (300, 300), (3, 3, 4, 20), (2, 2, 3, 60), (1, 6)])
def test_orthogonal_kernels_are_isometries(shape):
    matrix = numbers(ki.Orthogonal(gain=1.5, seed=2), shape).reshape(-1, shape[-1])
    values = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(values, 1.5, atol=1e-5)
    loose = numbers(ki.GlorotNormal(seed=2), shape).reshape(-1, shape[-1])
    if min(loose.shape) > 1:
        assert np.ptp(np.linalg.svd(loose, compute_uv=False)) > 1e-2


def test_orthogonal_matrices_are_uniformly_distributed():
    drawn = numbers(ki.Orthogonal(input_axes=[1], output_axes=[2], seed=1), (1500, 3, 3))
    # Each entry has mean 0 and variance 1/3; its square has variance 4/45. The sign of the determinant is a fair coin.
    assert np.abs(drawn.mean(axis=0)).max() < 5 * math.sqrt(1 / 3 / 1500)
    assert np.abs((drawn**2).mean(axis=0) - 1 / 3).max() < 5 * math.sqrt(4 / 45 / 1500)
    assert abs(np.linalg.det(drawn).mean()) < 5 / math.sqrt(1500)
    # Traces of Haar matrices have mean 0 and variance 1.
    assert np.trace(drawn, axis1=1, axis2=2).var() == pytest.approx(1.0, abs=5 * math.sqrt(2 / 1500))


@pytest.mark.parametrize(("kind", "blocks"), [(layers.LSTM, 4), (layers.GRU, 3)])
def test_every_gate_is_orthogonal(kind, blocks):
    layer = kind(16, recurrent_initializer=ki.Orthogonal(blocks=blocks, seed=1))
    layer.build((None, 5, 4))
    kernel = ops.convert_to_numpy(layer.cell.recurrent_kernel)
    gates = np.split(kernel, blocks, axis=1)
    for gate in gates:
        np.testing.assert_allclose(gate.T @ gate, np.eye(16), atol=1e-5)
    assert not np.allclose(gates[0], gates[1])
    whole = np.split(numbers(ki.Orthogonal(seed=1), (16, 16 * blocks)), blocks, axis=1)[0]
    assert not np.allclose(whole.T @ whole, np.eye(16), atol=0.1)
    with pytest.raises(ValueError, match="`blocks` must divide"):
        ki.Orthogonal(blocks=3)((4, 4))


def test_axes_and_batch_axes_of_orthogonal_kernels():
    kernel = numbers(ki.Orthogonal(input_axes=[1], output_axes=[2], seed=1), (3, 5, 5))
    for expert in kernel:
        np.testing.assert_allclose(expert.T @ expert, np.eye(5), atol=1e-5)
    assert not np.allclose(kernel[0], kernel[1])
    kernel = numbers(ki.Orthogonal(input_axes=[2], output_axes=[0, 1], seed=1), (2, 3, 6)).reshape(6, 6)
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(6), atol=1e-5)


def convolution_operator(layer, side, rank, channels):
    """The matrix of a convolution with circular padding, from its response to every impulse."""
    field = max(layer.kernel_size)
    pad = [(0, 0), *[((field - 1) // 2, field // 2)] * rank, (0, 0)]
    inputs = np.eye(side**rank * channels, dtype="float32").reshape(-1, *(side,) * rank, channels)
    return ops.convert_to_numpy(layer(np.pad(inputs, pad, mode="wrap"))).reshape(len(inputs), -1)


@pytest.mark.parametrize(("rank", "side", "field"), [(1, 9, 3), (1, 8, 4), (2, 5, 3), (3, 3, 3)])
@pytest.mark.parametrize("outputs", [4, 6, 2])
def test_a_delta_orthogonal_convolution_is_an_isometry(rank, side, field, outputs):
    layer = getattr(layers, f"Conv{rank}D")(outputs, field, kernel_initializer=ki.DeltaOrthogonal(seed=1))
    layer.build((None, *(side + field - 1,) * rank, 4))
    values = np.linalg.svd(convolution_operator(layer, side, rank, 4), compute_uv=False)
    rank_of_map = side**rank * min(4, outputs)
    np.testing.assert_allclose(values[:rank_of_map], 1.0, atol=1e-4)
    np.testing.assert_allclose(values[rank_of_map:], 0.0, atol=1e-4)
    layer.kernel.assign(ki.Orthogonal(seed=1)(layer.kernel.shape))
    assert np.ptp(np.linalg.svd(convolution_operator(layer, side, rank, 4), compute_uv=False)[:rank_of_map]) > 0.1


def test_a_delta_orthogonal_depthwise_kernel_keeps_each_channel():
    scheme = ki.DeltaOrthogonal(input_axes=[0, 1], output_axes=[0, 1, 3], seed=1)
    kernel = numbers(scheme, (3, 3, 5, 1))
    np.testing.assert_allclose(np.abs(kernel[1, 1, :, 0]), 1.0, atol=1e-6)
    assert np.abs(kernel).sum() == pytest.approx(5.0, abs=1e-5)


# --- identity, sparse, sub-pixel and residual schemes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_an_identity_convolution_changes_nothing(rank, dtype):
    layer = getattr(layers, f"Conv{rank}D")(3, 3, padding="same", kernel_initializer=ki.Identity(), dtype=dtype)
    x = np.random.default_rng(1).integers(-3, 4, (2, *(5,) * rank, 3)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(layer(x), "float32")), x)


def test_identity_matrices():
    np.testing.assert_array_equal(numbers(ki.Identity(gain=2.0), (2, 3)), 2.0 * np.eye(2, 3))
    np.testing.assert_array_equal(numbers(ki.Identity(), (3, 2)), np.eye(3, 2))
    np.testing.assert_array_equal(numbers(ki.Identity(blocks=2), (2, 4)), np.hstack([np.eye(2)] * 2))
    einsum = numbers(ki.Identity(input_axes=[0], output_axes=[1, 2]), (6, 2, 3)).reshape(6, 6)
    np.testing.assert_array_equal(einsum, np.eye(6))


def test_sparse_kernels_have_exactly_as_many_connections():
    kernel = numbers(ki.Sparse(connections=7, seed=1), (100, 500))
    assert set((kernel != 0).sum(axis=0)) == {7}
    assert_moments(kernel[kernel != 0], 1 / 7)
    # Each input is as likely as any other: 35 of 500 outputs, binomially.
    fed = (kernel != 0).sum(axis=1)
    assert np.abs(fed - 35).max() < 5 * math.sqrt(500 * 0.07 * 0.93)
    assert set((numbers(ki.Sparse(sparsity=0.9, seed=1), (100, 50)) != 0).sum(axis=0)) == {10}
    assert set((numbers(ki.Sparse(seed=1), (100, 50)) != 0).sum(axis=0)) == {15}
    assert set((numbers(ki.Sparse(seed=1), (9, 50)) != 0).sum(axis=0)) == {9}
    values = numbers(ki.Sparse(connections=40, stddev=0.01, seed=1), (100, 500))
    assert_moments(values[values != 0], 1e-4)
    conv = numbers(ki.Sparse(connections=4, seed=1), (3, 3, 8, 6))
    assert set((conv != 0).reshape(-1, 6).sum(axis=0)) == {4}


def test_icnr_starts_as_nearest_neighbour_upsampling():
    side, scale, outputs = 4, 2, 3
    layer = layers.Conv2D(outputs * scale**2, 3, padding="same", kernel_initializer=ki.ICNR(ki.HeNormal(seed=1), scale))
    x = np.random.default_rng(1).normal(size=(1, side, side, 5)).astype("float32")
    maps = ops.convert_to_numpy(layer(x))[0]

    def depth_to_space(maps):
        blocks = maps.reshape(side, side, scale, scale, outputs).transpose(0, 2, 1, 3, 4)
        return blocks.reshape(side * scale, side * scale, outputs)

    plain = maps[:, :, :outputs]
    np.testing.assert_allclose(depth_to_space(maps), plain.repeat(scale, 0).repeat(scale, 1), atol=1e-6)
    layer.kernel.assign(ki.HeNormal(seed=1)(layer.kernel.shape))
    maps = ops.convert_to_numpy(layer(x))[0]
    assert not np.allclose(depth_to_space(maps), maps[:, :, :outputs].repeat(scale, 0).repeat(scale, 1), atol=1e-2)


def test_icnr_orders_and_dimensions():
    shuffled = numbers(ki.ICNR(ki.HeNormal(seed=1), 2, order="pixel_shuffle"), (3, 3, 5, 8))
    np.testing.assert_array_equal(shuffled[..., 0], shuffled[..., 3])
    assert not np.array_equal(shuffled[..., 0], shuffled[..., 4])
    volume = numbers(ki.ICNR("he_normal", 2), (3, 3, 3, 2, 16))
    np.testing.assert_array_equal(volume[..., 0], volume[..., 14])
    # The variance is that of the wrapped scheme: the fan in is the same.
    assert_moments(numbers(ki.ICNR(ki.HeNormal(seed=1)), (3, 3, 64, 512))[..., :128], 2 / 576)
    with pytest.raises(ValueError, match="must divide the filters"):
        ki.ICNR(scale=3)((3, 3, 4, 8))


@pytest.mark.parametrize(
    ("form", "layers_", "factor"),
    [
        ("fixup", 2, 20**-0.5),
        ("fixup", 3, 20**-0.25),
        ("t_fixup_encoder", 2, 0.67 * 20**-0.25),
        ("t_fixup_decoder", 2, 180**-0.25),
        ("sqrt", 2, 20**-0.5),
    ],
)
def test_depth_scaled_factors(form, layers_, factor):
    scheme = ki.DepthScaled(20, form, layers_, initializer=ki.LeCunNormal(seed=1))
    assert scheme.factor == pytest.approx(factor)
    assert_moments(numbers(scheme, (200, 300)), factor**2 / 200)


def test_depth_scaling_keeps_a_residual_stack_at_its_size():
    def size(scheme):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(64, 64))
        for _ in range(40):
            x = x + np.maximum(x @ numbers(scheme(), (64, 64)), 0) @ numbers(scheme(), (64, 64))
        return np.sqrt(np.mean(x**2))

    assert size(lambda: ki.DepthScaled(40)) < 4.0
    assert size(ki.HeNormal) > 1e4


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: ki.VarianceScaling(scale=0), "scale"),
        (lambda: ki.VarianceScaling(scale="1"), "scale"),
        (lambda: ki.VarianceScaling(mode="fan"), "mode"),
        (lambda: ki.VarianceScaling(distribution="gauss"), "distribution"),
        (lambda: ki.VarianceScaling(gain=-1.0), "gain"),
        (lambda: ki.HeNormal(truncated="yes"), "truncated"),
        (lambda: ki.HeNormal(input_axes=[0]), "output_axes"),
        (lambda: ki.HeNormal(input_axes=[0, 0], output_axes=[1]), "input_axes"),
        (lambda: ki.HeNormal(input_axes=0, output_axes=[1]), "input_axes"),
        (lambda: ki.RandomNormal(stddev=-1), "stddev"),
        (lambda: ki.RandomNormal(mean=math.nan), "mean"),
        (lambda: ki.RandomUniform(1.0, 0.0), "maxval"),
        (lambda: ki.Orthogonal(blocks=0), "blocks"),
        (lambda: ki.Orthogonal(gain=0), "gain"),
        (lambda: ki.Sparse(connections=0), "connections"),
        (lambda: ki.Sparse(sparsity=1.0), "sparsity"),
        (lambda: ki.Sparse(connections=3, sparsity=0.5), "connections"),
        (lambda: ki.ICNR(scale=0), "scale"),
        (lambda: ki.ICNR(order="rows"), "order"),
        (lambda: ki.ICNR(initializer=len), "initializer"),
        (lambda: ki.DepthScaled(0), "depth"),
        (lambda: ki.DepthScaled(3, form="pre"), "form"),
        (lambda: ki.DepthScaled(3, layers=1), "layers"),
    ],
)
def test_a_bad_argument_is_refused_by_name_when_the_scheme_is_made(make, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        make()


def test_aliases_are_the_classes_themselves():
    assert ki.XavierNormal is ki.GlorotNormal
    assert ki.XavierUniform is ki.GlorotUniform
    assert ki.KaimingNormal is ki.HeNormal
    assert ki.KaimingUniform is ki.HeUniform


LAYOUT = """
import numpy as np, keras, keras_initaudit as ki
devices = keras.distribution.list_devices()
assert len(devices) == 4, devices
mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
layouts = keras.distribution.LayoutMap(mesh)
layouts["dense.*kernel"] = (None, "model")
keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch"))
for scheme in (ki.HeNormal(seed=1), ki.Orthogonal(seed=1), ki.Sparse(seed=1), ki.Identity(), ki.DepthScaled(4, seed=1)):
    layer = keras.layers.Dense(8, kernel_initializer=scheme, name="dense")
    layer.build((None, 6))
    shards = {tuple(shard.data.shape) for shard in layer.kernel.value.addressable_shards}
    assert shards == {(6, 4)}, (scheme, shards)
    np.testing.assert_allclose(np.asarray(layer.kernel.value), np.asarray(scheme((6, 8))), atol=1e-5)
print("laid out")
"""


@pytest.mark.skipif(BACKEND != "jax", reason="a layout is JAX's")
def test_a_layout_is_honoured():
    flags = "--xla_force_host_platform_device_count=4"
    environment = {**os.environ, "PYTHONPATH": PACKAGE, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags}
    run = subprocess.run([sys.executable, "-c", LAYOUT], capture_output=True, text=True, env=environment, check=False)
    assert run.stdout.strip().endswith("laid out"), run.stderr[-3000:]
