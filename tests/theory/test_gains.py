"""Gains against reference figures, against an independent quadrature, and against closed forms."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from keras_initaudit.theory.chaos import critical_point, depth_scale
from keras_initaudit.theory.gains import (
    NAMES,
    NOT_ELEMENTWISE,
    activation_name,
    flat_ends,
    gain,
    moments,
    resolve,
)

REFERENCE = [
    line.split("\t")
    for line in (Path(__file__).parents[1] / "reference" / "gains.tsv").read_text().splitlines()
    if line and not line.startswith(("#", "activation"))
]
# A callable is evaluated by the backend; JAX computes in float32, whose rounding the derivative amplifies.
CALLABLE = 1e-8 if keras.backend.backend() != "jax" else 2e-4


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: row[0])
def test_reference_figures_are_reproduced(row):
    name, figures = row[0], [float(figure) for figure in row[1:]]
    computed = [*moments(name), gain(name), gain(name, "backward"), gain(name, "std")]
    assert computed == pytest.approx(figures, abs=1e-9)


def test_every_elementwise_activation_of_keras_is_in_the_table():
    functions = {name for name in dir(keras.activations) if not name.startswith("_")}
    functions -= {"get", "serialize", "deserialize", "swish", "hard_swish", *NOT_ELEMENTWISE}
    assert functions <= set(NAMES)
    assert {row[0].split("(")[0] for row in REFERENCE} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("prelu", "threshold")])
def test_the_table_is_what_keras_computes(name):
    x = np.linspace(-7.0, 7.0, 301).astype("float32")
    expected = keras.ops.convert_to_numpy(getattr(keras.activations, name)(keras.ops.convert_to_tensor(x)))
    # softplus and exp are evaluated in float32 by Keras: a relative 1e-6 of values up to 1100.
    np.testing.assert_allclose(resolve(name).phi(x.astype("float64")), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("text", "function", "parameters"),
    [
        ("elu(1.5)", "elu", {"alpha": 1.5}),
        ("celu(2)", "celu", {"alpha": 2.0}),
        ("squareplus(1)", "squareplus", {"b": 1.0}),
        ("gelu(tanh)", "gelu", {"approximate": True}),
        ("soft_shrink(0.3)", "soft_shrink", {"threshold": 0.3}),
        ("hard_shrink(0.3)", "hard_shrink", {"threshold": 0.3}),
        ("threshold(0.5, -2)", "threshold", {"threshold": 0.5, "default_value": -2.0}),
        ("relu(0.1, 3, 1)", "relu", {"negative_slope": 0.1, "max_value": 3.0, "threshold": 1.0}),
    ],
)
def test_parameters_mean_what_they_mean_in_keras(text, function, parameters):
    x = np.linspace(-7.0, 7.0, 301).astype("float32")
    expected = getattr(keras.activations, function)(keras.ops.convert_to_tensor(x), **parameters)
    np.testing.assert_allclose(
        resolve(text).phi(x.astype("float64")), keras.ops.convert_to_numpy(expected), rtol=2e-6, atol=2e-6
    )


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "silu", "softplus", "mish", "exponential"])
@pytest.mark.parametrize("q", [0.25, 1.0, 4.0])
def test_smooth_moments_agree_with_gauss_hermite_quadrature(name, q):
    # An oracle of another kind: one global rule in place of panels, differences in place of interpolants.
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    keep = np.abs(z) < 13
    x, weight = math.sqrt(q) * z[keep], weight[keep] / math.sqrt(2 * math.pi)
    phi, h = resolve(name).phi, 1e-5
    slope = (phi(x + h) - phi(x - h)) / (2 * h)
    expected = [np.sum(weight * phi(x)), np.sum(weight * phi(x) ** 2), np.sum(weight * slope**2)]
    # The poles of tanh and its like are at a distance of 1/sqrt(q) standard deviations: the oracle is the less exact.
    assert moments(name, q) == pytest.approx(expected, rel=1e-8 if q <= 1 else 5e-6)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.3, 2.0])
def test_leaky_relu_has_its_closed_form(slope):
    expected = math.sqrt(2.0 / (1.0 + slope**2))
    assert gain(f"leaky_relu({slope})") == pytest.approx(expected, abs=1e-12)
    assert gain(f"leaky_relu({slope})", "backward") == pytest.approx(expected, abs=1e-12)
    assert gain(f"leaky_relu({slope + 0.1})") != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (layers.LeakyReLU(negative_slope=0.1), "leaky_relu(0.1)"),
        (layers.ReLU(), "relu"),
        (layers.ReLU(max_value=6), "relu6"),
        (layers.ReLU(negative_slope=0.2), "leaky_relu(0.2)"),
        (layers.ReLU(max_value=3, threshold=1), "relu(max_value=3, threshold=1)"),
        (layers.ELU(alpha=0.5), "elu(0.5)"),
        (layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25)), "prelu(0.25)"),
        (layers.Activation("tanh"), "tanh"),
        (layers.Dense(2, activation="gelu"), "gelu"),
        (layers.LSTM(2), "tanh"),
        (keras.activations.leaky_relu, "leaky_relu(0.2)"),
        ("swish", "silu"),
        ("gelu(tanh)", "gelu(tanh)"),
        ("elu(1.5)", "elu(1.5)"),
    ],
)
def test_layers_and_spellings_have_one_canonical_name_that_can_be_given_back(layer, name):
    assert activation_name(layer) == name
    assert gain(name) == pytest.approx(gain(layer), abs=1e-12)
    assert activation_name(name) == name


@pytest.mark.parametrize("nothing", [None, "linear", keras.activations.linear, layers.Dense(2), layers.Dropout(0.5)])
def test_linear_has_no_name(nothing):
    assert activation_name(nothing) is None


def test_a_built_prelu_counts_with_all_its_slopes():
    layer = layers.PReLU()
    layer.build((None, 2))
    layer.alpha.assign([0.0, 0.6])
    # Mean over the units of (1 + alpha^2) / 2.
    assert gain(layer) == pytest.approx(1 / math.sqrt((1 + 0.18) / 2), rel=1e-6)


@pytest.mark.parametrize("name", NOT_ELEMENTWISE)
def test_what_mixes_units_has_no_gain(name):
    with pytest.raises(ValueError, match="has no gain"):
        gain(name)
    with pytest.raises(ValueError, match="has no gain"):
        gain(getattr(keras.activations, name))
    assert activation_name(name) == name
    assert flat_ends(name) is None


@pytest.mark.parametrize("name", ["relu", "hard_shrink", "hard_silu", "gelu", "softsign", "sparse_plus", "relu6"])
def test_a_callable_is_as_exact_as_the_table(name):
    function = getattr(keras.activations, name)
    for kind in ("forward", "backward", "std"):
        assert gain(lambda x: function(x), kind) == pytest.approx(gain(name, kind), rel=CALLABLE)


def test_kinks_of_a_callable_are_found_wherever_they_are():
    def stairs(x):
        return keras.ops.relu(x - 0.123456789) - 2.0 * keras.ops.relu(x - 1.0 / 3.0)

    z = np.linspace(-13.0, 13.0, 4_000_001)
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    values = np.maximum(z - 0.123456789, 0) - 2 * np.maximum(z - 1 / 3, 0)
    slopes = (z > 0.123456789) - 2.0 * (z > 1 / 3)
    # Between two points of the sum lies each kink: the slope is off by half a step of 6.5e-6.
    expected = [np.trapezoid(density * f, z) for f in (values**2, slopes**2)]
    assert moments(stairs)[1:] == pytest.approx(expected, rel=max(2e-5, CALLABLE))


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: keras.ops.softmax(x), "each output depends on several inputs"),
        (lambda x: x - keras.ops.mean(x), "not a fixed function"),
        (lambda x: keras.random.normal(keras.ops.shape(x)), "not a fixed function"),
        (lambda x: keras.ops.sum(x), "not elementwise"),
        (lambda x: keras.ops.log(x), "not finite|not a fixed"),
        (lambda x: x * 0.0, "has no forward gain"),
        (lambda x, y: x, "could not be evaluated"),
    ],
)
def test_a_callable_without_a_gain_is_refused(function, why):
    with pytest.raises(ValueError, match=why):
        gain(function)


def test_arguments_are_checked_by_name():
    with pytest.raises(ValueError, match="`kind` must be one of"):
        gain("relu", kind="sideways")
    with pytest.raises(ValueError, match="Unknown activation 'rellu'"):
        gain("rellu")
    with pytest.raises(ValueError, match="has no parameter"):
        gain("elu(beta=2)")
    with pytest.raises(ValueError, match="must be a number"):
        gain("elu(much)")
    with pytest.raises(ValueError, match="no elementwise activation"):
        gain(layers.BatchNormalization())
    with pytest.raises(ValueError, match="`activation` must be"):
        gain(3)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softsign"])
def test_at_the_flat_ends_the_slope_is_two_percent_of_the_steepest(name):
    low, high = flat_ends(name)
    phi, h = resolve(name).phi, 1e-6
    slopes = [(phi(np.array(x + h)) - phi(np.array(x - h))) / (2 * h) for x in (low, high, 0.0)]
    assert slopes[0] / slopes[2] == pytest.approx(0.02, rel=1e-3)
    assert slopes[1] / slopes[2] == pytest.approx(0.02, rel=1e-3)


def test_flat_ends_are_those_of_the_function():
    assert flat_ends("hard_sigmoid") == (-3.0, 3.0)
    assert flat_ends("hard_tanh") == (-1.0, 1.0)
    assert flat_ends(layers.ReLU(max_value=3)) == (0.0, 3.0)
    assert flat_ends("relu6") == (0.0, 6.0)
    for steep in ("relu", "elu", "gelu", "softplus", "exponential", "linear", None, "hard_shrink"):
        assert flat_ends(steep) is None
    low, high = flat_ends(lambda x: keras.ops.tanh(3.0 * x))
    assert (low, high) == pytest.approx([end / 3 for end in flat_ends("tanh")], abs=1e-2)


@pytest.mark.parametrize("sigma_b", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("name", ["tanh", "elu", "softsign", "hard_tanh"])
def test_a_critical_point_is_a_fixed_point_with_unit_slope(name, sigma_b):
    point = critical_point(name, sigma_b)
    q = point.q or 1e-12
    _, square, slope = moments(name, q)
    assert point.sigma_w**2 * square + sigma_b**2 == pytest.approx(q, rel=1e-5)
    assert point.sigma_w**2 * slope == pytest.approx(1.0, rel=1e-5)
    # The variance does converge there, from above: iterate the map itself.
    q = 3.0
    for _ in range(4000):
        q = point.sigma_w**2 * moments(name, q)[1] + sigma_b**2 if q > 1e-3 else 0.0
        if abs(q - point.q) < 1e-3:
            break
    # Towards q* = 0 it goes down as 1 over the number of layers, or slower.
    assert q == pytest.approx(point.q, abs=2e-3 if sigma_b else 0.1)


def test_homogeneous_functions_are_critical_at_every_variance():
    point = critical_point("relu")
    assert point.sigma_w == pytest.approx(math.sqrt(2.0), abs=1e-12)
    assert math.isnan(point.q)


@pytest.mark.parametrize(("name", "sigma_b"), [("relu", 0.1), ("gelu", 0.0), ("softplus", 0.2)])
def test_where_there_is_no_critical_point_it_says_so(name, sigma_b):
    with pytest.raises(ValueError, match="no critical point"):
        critical_point(name, sigma_b)
    with pytest.raises(ValueError, match="`sigma_b` must be"):
        critical_point(name, -1.0)


def test_the_depth_scale_of_the_ordered_phase_is_that_of_the_slope():
    assert depth_scale("relu", 1.0) == pytest.approx(1.0 / math.log(2.0), rel=1e-9)
    assert depth_scale("relu", math.sqrt(2.0)) == math.inf
    point = critical_point("tanh", 0.2)
    assert depth_scale("tanh", point.sigma_w, 0.2) > 1000
    assert depth_scale("tanh", point.sigma_w - 0.3, 0.2) < 15


def test_the_depth_scale_of_the_chaotic_phase_agrees_with_a_plain_double_quadrature():
    sigma_w, sigma_b = 2.0, 0.2
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = weight / weight.sum()
    q = 1.0
    for _ in range(300):
        q = sigma_w**2 * np.sum(weight * np.tanh(math.sqrt(q) * z) ** 2) + sigma_b**2
    c = 0.5
    for _ in range(2000):
        u = math.sqrt(q) * z[:, None]
        v = math.sqrt(q) * (c * z[:, None] + math.sqrt(1 - c * c) * z[None, :])
        both = weight[:, None] * weight[None, :]
        c = (sigma_w**2 * np.sum(both * np.tanh(u) * np.tanh(v)) + sigma_b**2) / q
    chi = sigma_w**2 * np.sum(both / np.cosh(u) ** 2 / np.cosh(v) ** 2)
    assert depth_scale("tanh", sigma_w, sigma_b) == pytest.approx(-1.0 / math.log(chi), rel=1e-3)


def test_a_depth_scale_is_never_negative():
    assert depth_scale("relu6", gain("relu6")) == math.inf  # 2e-8 beyond the edge of chaos
    assert depth_scale("hard_shrink", 1.0) == 0.0
    for name in NAMES:
        for sigma_w in (0.5, 1.0, math.sqrt(2.0)):
            try:
                assert depth_scale(name, sigma_w) >= 0.0, name
            except ValueError as error:
                assert "grows without bound" in str(error)  # noqa: PT017


def test_a_variance_without_bound_has_no_depth_scale():
    with pytest.raises(ValueError, match="grows without bound"):
        depth_scale("relu", 2.0)
