"""Every statistic against a naive second implementation in float64, and what thinning costs against its own law."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_initaudit.observe import measures
from keras_initaudit.records import COLUMNS

RNG = np.random.default_rng(0)


def naive(kind, x, ends=(-math.inf, math.inf)):
    """The definitions as they stand in `records.Statistics`, one number at a time."""
    x = np.asarray(x, np.float64)
    good = x[np.isfinite(x)]
    n = good.size
    nan = math.nan
    square = sum(v * v for v in good.tolist()) / n if n else nan
    mean = math.fsum(good.tolist()) / n if n else nan
    variances, weight = [], 0
    for position in range(x.shape[1]):
        for unit in range(x.shape[2]):
            column = x[:, position, unit]
            column = column[np.isfinite(column)]
            if column.size:
                variances.append(column.size * column.var())
                weight += column.size
    found = {
        "mean": mean,
        "std": math.sqrt(sum((v - mean) ** 2 for v in good.tolist()) / n) if n else nan,
        "rms": math.sqrt(square) if n else nan,
        "max": max((abs(v) for v in good.tolist()), default=nan),
        "zero": sum(v == 0.0 for v in good.tolist()) / n if n else nan,
        "dead": sum(bool((x[:, :, u] == 0.0).all()) for u in range(x.shape[2])) / x.shape[2] if n else nan,
        "nonfinite": 1 - n / x.size if x.size else nan,
        "spread": math.sqrt(sum(variances) / weight / square) if n and len(x) > 1 and square > 0 else nan,
        "saturated": sum(v < ends[0] or v > ends[1] for v in good.tolist()) / n if n else nan,
    }
    return {name: found[name] for name in measures.MEASURED[kind]}


def holed(x):
    x = x.copy()
    x[0, 0, 0], x[-1, -1, 1], x[1, 0, 2] = math.nan, math.inf, -math.inf
    return x


NORMAL = RNG.normal(0.3, 1.0, (6, 5, 4)).astype("float32")
DEAD = np.maximum(NORMAL, 0) * np.array([1, 0, 1, 0], "float32")
TENSORS = {
    "normal": NORMAL,
    "rectified with dead units": DEAD,
    "one sample": NORMAL[:1],
    "one unit": NORMAL[:, :, :1],
    "one number": NORMAL[:1, :1, :1],
    "zeros": np.zeros((3, 2, 4), "float32"),
    "constant": np.full((3, 2, 4), -7.25, "float32"),
    "the same for each sample": np.repeat(NORMAL[:1], 5, 0),
    "almost the same for each sample": np.repeat(NORMAL[:1], 5, 0) + 1e-4 * NORMAL[:5],
    "far from zero": NORMAL + np.float32(1000.0),
    "huge": NORMAL * np.float32(1e30),
    "tiny": NORMAL * np.float32(1e-30),
    "huge beside tiny": NORMAL * np.float32([1e30, 1e-30, 1, 0]),
    "with NaN and infinities": holed(NORMAL),
    "dead, with NaN and infinities": holed(DEAD),
    "huge, with NaN and infinities": holed(NORMAL * np.float32(1e30)),
    "a dead unit with one NaN": holed(DEAD * np.float32([0, 0, 0, 1])),
    "nothing finite": np.full((2, 3, 2), math.nan, "float32"),
    "empty": np.zeros((0, 3, 4), "float32"),
    "float16": NORMAL.astype("float16").astype("float32"),
}


@pytest.mark.parametrize("kind", measures.MEASURED)
@pytest.mark.parametrize("name", TENSORS)
def test_numbers_are_those_of_the_definitions(kind, name):
    x = TENSORS[name]
    ends = (-0.5, 0.9)
    found, expected = measures.measured(kind, x, ends), naive(kind, x, ends)
    assert found.keys() == expected.keys()
    largest = float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
    for key in expected:
        # float32 sums: 1e-6 of the size of what is summed; a deviation of samples is found to 1e-7 of the rms.
        slack = {"mean": 1e-6 * largest, "std": 1e-6 * largest, "spread": 1e-7}.get(key, 0.0)
        assert found[key] == pytest.approx(expected[key], rel=3e-6, abs=slack, nan_ok=True), key


def test_every_kind_fills_the_columns_of_the_log():
    named = {f"{kind}_{name}" for kind, names in measures.MEASURED.items() for name in names}
    named = named - {"preactivation_saturated"} | {"activation_saturated"}
    others = {"attention_entropy", "attention_logit_max", "backward_time_log10", "update_log10", "update_zero"}
    others |= {"weight_identical", "gradient_identical"}
    assert named | others == set(COLUMNS)
    assert not named & others


def test_the_largest_is_of_what_is_finite():
    assert measures.largest(np.float32([[1, -3], [2, math.nan]])) == 3.0
    assert math.isnan(measures.largest(np.float32([math.inf])))


def test_a_time_step_changes_a_gradient_by_the_root_of_what_all_do():
    def decades(sizes, real=None):
        sizes = np.float32(sizes)
        return measures.time_log10(np.stack([sizes, np.ones_like(sizes) if real is None else np.float32(real)]))

    falling = [10.0**-k for k in (4, 3, 2, 1)]
    assert decades([falling, falling]) == pytest.approx(-1.0)
    assert decades([falling[::-1]]) == pytest.approx(1.0)
    assert decades([[1e-4, 7.0, 7.0, 1e-1]]) == pytest.approx(-1.0)  # the ends alone count
    padded = [[0, 0, *falling], [*falling, 0, 0]], [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]
    assert decades(*padded) == pytest.approx(-1.0)
    assert decades([falling, falling], [[1, 1, 1, 1], [0, 0, 1, 1]]) == pytest.approx(-1.0)
    # Below the smallest number of float32 it ends at the last step that can be seen.
    assert decades([10.0 ** np.arange(-90.0, 0.0, 1.5)]) == pytest.approx(-1.5, rel=1e-3)
    assert decades([[0.0, 0.0, 1.0]]) == pytest.approx(math.log10(2.0**-149))
    for nothing in ([[1e-3, 0.0]], [[1.0, math.nan]], [[1.0]]):  # nothing to compare with
        assert math.isnan(decades(nothing))


def test_the_same_for_each_sample_is_no_spread_and_almost_is_some():
    def spread(name):
        return measures.measured("activation", TENSORS[name])["spread"]

    assert spread("the same for each sample") == 0.0
    assert 1e-5 < spread("almost the same for each sample") < 1e-3
    assert spread("normal") > 0.5


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30, 1e-37])
def test_rms_at_any_scale(scale):
    x = RNG.normal(size=1000).astype("float32") * np.float32(scale)
    assert measures.rms(x) == pytest.approx(math.sqrt(np.mean(x.astype(np.float64) ** 2)), rel=1e-5)


def test_rms_of_nothing_and_of_zeros():
    assert math.isnan(measures.rms(np.zeros(0, "float32")))
    assert measures.rms(np.zeros(4, "float32")) == 0.0
    assert math.isnan(measures.rms(np.float32([1.0, math.nan])))


# Histograms


@pytest.mark.parametrize("name", TENSORS)
def test_histogram_counts_every_finite_value_once(name):
    x = TENSORS[name]
    good = x[np.isfinite(x)]
    found = measures.histogram(x)
    if not good.size:
        assert found is None
        return
    assert len(found.counts) == measures.BINS
    assert sum(found.counts) == good.size
    assert found.low == good.min()
    assert found.high >= good.max()
    assert found.high > found.low
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)


def test_histogram_counts_are_those_of_numpy():
    # Quarters, and edges at eighths: no value stands where rounding decides its bin.
    x = (RNG.integers(0, 60, (50, 1, 40)) / 4 + 0.125).astype("float32")
    x[0, 0, 0], x[0, 0, 1] = 0.0, 15.0
    found = measures.histogram(x)
    assert (found.low, found.high) == (0.0, 15.0)
    assert list(found.counts) == np.histogram(x, measures.BINS, (0.0, 15.0))[0].tolist()


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_histogram_does_not_depend_on_the_scale(scale):
    x = RNG.normal(size=(32, 1, 64)).astype("float32")
    plain, scaled = measures.histogram(x), measures.histogram(x * np.float32(scale))
    assert scaled.low == pytest.approx(plain.low * scale, rel=1e-6)
    moved = np.abs(np.array(plain.counts) - scaled.counts).sum()
    assert moved <= 4  # values that rounding carries over an edge


def test_histogram_of_the_whole_range_of_float32():
    top = float(np.finfo("float32").max)
    found = measures.histogram(np.float32([[[-top, 0.0, top]]]))
    assert found.counts[0] == 1
    assert found.counts[-1] == 1
    assert sum(found.counts) == 3


# Identical columns


def identical_by_comparing(matrix):
    columns = matrix.T.tolist()
    return sum(columns.count(column) > 1 for column in columns) / len(columns)


@pytest.mark.parametrize("copies", [0, 2, 7, 40])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_identical_columns_are_counted(copies, scale):
    matrix = (RNG.normal(size=(30, 40)) * scale).astype("float32")
    matrix[:, :copies] = matrix[:, :1]
    matrix = matrix[:, RNG.permutation(40)]
    assert measures.identical(matrix) == identical_by_comparing(matrix) == copies / 40


def test_two_families_of_copies():
    matrix = RNG.normal(size=(30, 2)).astype("float32").repeat(5, 1)
    assert measures.identical(np.hstack([matrix, RNG.normal(size=(30, 10)).astype("float32")])) == 0.5


def test_columns_that_are_not_identical():
    assert measures.identical(RNG.normal(size=(9, 4096)).astype("float32")) < 2e-3
    assert measures.identical(np.eye(64, dtype="float32")) == 0.0
    near = np.ones((64, 32), "float32")
    near[5] += np.linspace(0, 0.1, 32, dtype="float32")  # all alike but for one row
    assert measures.identical(near) == 0.0
    opposite = np.float32([[1, -1], [1, -1]])
    assert measures.identical(opposite) == 0.0


def test_constant_and_degenerate_matrices():
    assert measures.identical(np.zeros((5, 4), "float32")) == 1.0
    assert measures.identical(np.full((5, 4), 0.3, "float32")) == 1.0
    assert measures.identical(np.ones((5, 1), "float32")) == 0.0
    assert measures.identical(np.ones((0, 3), "float32")) == 0.0
    assert measures.identical(np.full((5, 4), math.nan, "float32")) == 0.0


def test_an_identity_of_which_rows_are_missing_has_no_copies():
    some = np.eye(512, dtype="float32")[::17]
    assert measures.identical(some, sampled=True) == 0.0
    assert measures.identical(some) > 0.9  # which is what the missing rows would make of it
    assert measures.identical(np.ones((31, 512), "float32"), sampled=True) == 1.0
    assert measures.identical(np.zeros((31, 512), "float32"), sampled=True) == 1.0


# Entropy


def test_entropy():
    def probabilities(logits):
        return np.asarray(tf.nn.softmax(tf.constant(logits, tf.float32)))

    logits = RNG.normal(size=(20, 7))
    p = probabilities(logits).astype(np.float64)
    naive_entropy = np.mean([-sum(q * math.log(q) for q in row) for row in p]) / math.log(7)
    assert measures.entropy(probabilities(logits)) == pytest.approx(naive_entropy, rel=1e-5)
    assert measures.entropy(probabilities(np.zeros((4, 9)))) == pytest.approx(1.0, rel=1e-6)
    assert measures.entropy(np.eye(6, dtype="float32")) == pytest.approx(0.0, abs=1e-6)
    padded = np.vstack([np.zeros((5, 9)), np.full((3, 9), 1 / 9)]).astype("float32")
    assert measures.entropy(padded) == pytest.approx(1.0, rel=1e-6)
    assert math.isnan(measures.entropy(np.zeros((4, 3), "float32")))
    assert math.isnan(measures.entropy(np.ones((4, 1), "float32")))
    assert math.isnan(measures.entropy(np.full((4, 3), math.nan, "float32")))


# Thinning


@pytest.mark.parametrize(
    "shape", [(), (7,), (4, 6), (4, 5, 6), (2, 3, 4, 5), (2, 3, 2, 2, 4), (0, 3), (3, 0, 2), (32, 1, 40000)]
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8"])
def test_small_tensors_stay_whole(shape, dtype):
    x = (np.arange(math.prod(shape)) % 200).reshape(shape).astype(dtype)
    found = np.asarray(measures.thinned(tf.constant(x)))
    assert found.ndim == 3
    if x.size <= measures.SAMPLE_SIZE:
        expected = x.reshape(-1, 1, 1) if x.ndim < 2 else x.reshape(shape[0], math.prod(shape[1:-1]), shape[-1])
        np.testing.assert_array_equal(found, expected)
    else:
        assert found.size <= measures.SAMPLE_SIZE


@pytest.mark.parametrize(
    "shape", [(32, 64, 64, 64), (32, 2048), (8, 100, 3000), (1, 7, 5000, 3), (40000, 3), (100000,), (128, 224, 224, 3)]
)
def test_large_tensors_are_thinned_and_every_kept_number_is_theirs(shape):
    x = np.arange(math.prod(shape), dtype="int32").reshape(shape)
    found = np.asarray(measures.thinned(tf.constant(x)))
    assert measures.SAMPLE_SIZE / 4 < found.size <= measures.SAMPLE_SIZE
    whole = x.reshape(-1, 1, 1) if x.ndim < 2 else x.reshape(shape[0], -1, shape[-1])
    strides = measures._strides(*whole.shape, measures.SAMPLE_SIZE)
    np.testing.assert_array_equal(found, whole[:: strides[0], :: strides[1], :: strides[2]])
    assert all(stride == 1 or stride % 2 for stride in strides)
    positions = min(whole.shape[1], measures.MIN_POSITIONS)
    assert found.shape[1] >= positions // 2
    if whole.shape[0] * positions * whole.shape[2] <= measures.SAMPLE_SIZE:
        assert found.shape[0] == shape[0]
        assert found.shape[2] == shape[-1]


def test_the_one_position_inside_a_padded_map_is_not_left_out():
    x = np.zeros((32, 3, 3, 960), "float32")
    x[:, 1, 1] = np.random.default_rng(0).normal(size=(32, 960))
    found = np.asarray(measures.thinned(tf.constant(x), measures.ACTIVATION_SAMPLE_SIZE))
    assert found.shape[1] == 9
    assert np.count_nonzero(found) == found.size // 9


def test_a_thinned_tensor_has_the_moments_of_the_whole_within_five_standard_errors():
    x = RNG.normal(0.0, 2.0, (32, 40, 40, 64)).astype("float32")
    sample = np.asarray(measures.thinned(tf.constant(x)))
    n = sample.size
    found = measures.measured("activation", sample)
    assert abs(found["std"] / 2.0 - 1.0) < 5 / math.sqrt(2 * n)
    assert abs(found["mean"]) < 5 * 2.0 / math.sqrt(n)
    # A difference of 4 % is seen: the tolerance is not there to let anything pass.
    wider = measures.measured("activation", sample * np.float32(1.04))
    assert abs(wider["std"] / 2.0 - 1.0) > 5 / math.sqrt(2 * n)


def test_a_tensor_of_unknown_shape_stays_whole():
    x = RNG.normal(size=(4, 3, 5)).astype("float32")
    for spec in (tf.TensorSpec([None, 3, None]), tf.TensorSpec([None, None, 5])):
        found = tf.function(measures.thinned, input_signature=[spec])(tf.constant(x))
        np.testing.assert_array_equal(found, x)
    assert tf.function(measures.thinned, input_signature=[tf.TensorSpec(None)])(tf.constant(x)).shape == (60, 1, 1)


@pytest.mark.parametrize("shape", [(3, 3, 8, 4), (20, 7), (6, 2, 3), (5000, 300), (40, 60000), (3, 3, 512, 512)])
def test_a_thinned_kernel_keeps_all_units(shape):
    units = shape[-1]
    x = np.arange(math.prod(shape), dtype="int32").reshape(shape)
    found = np.asarray(measures.thinned_matrix(tf.constant(x), units))
    whole = x.reshape(-1, units)
    stride = measures.matrix_stride(*whole.shape)
    np.testing.assert_array_equal(found, whole[::stride])
    assert len(found) >= min(len(whole), measures.MATRIX_ROWS * 2 // 3)
    assert found.size <= max(measures.MATRIX_SIZE, measures.MATRIX_ROWS * units)


def test_rows_of_probabilities_stay_whole():
    p = RNG.dirichlet(np.ones(30000), (8, 4)).astype("float32")
    rows = np.asarray(measures.thinned_rows(tf.constant(p)))
    np.testing.assert_allclose(rows.sum(-1), 1.0, rtol=1e-4)
    assert 6 <= len(rows) <= 32
    assert measures.entropy(rows) == pytest.approx(measures.entropy(p.reshape(-1, 30000)), rel=5e-3)
