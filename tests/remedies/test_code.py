"""The code of a remedy, run as a person runs it, does what `apply` does: in a process of its own, for every remedy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initaudit.records.remedies import (
    REMEDIES,
    Activate,
    CleanData,
    LearningRate,
    PlainNormalization,
    Policy,
    Preprocess,
    Reinitialize,
    ScaleTargets,
    Scheme,
    SetBias,
    Together,
    WholeModel,
    Widen,
    literal,
)
from keras_initaudit.remedies import apply
from keras_initaudit.remedies.applying import made

RNG = np.random.default_rng(0)
TABLE = RNG.uniform(-40.0, 90.0, (64, 6)).astype("float32")
PARTS = {'a"b': TABLE, "it's\n": 1e-4 * TABLE + 3.0}
SCALES = np.float32([1e-3, 1.0, 1e3, 1.0, 1e5, 30.0])
TARGETS = (20.0 + 5.0 * RNG.normal(size=(64, 1))).astype("float32")
HOLES = np.where(RNG.uniform(size=(64, 1)) < 0.1, np.nan, TARGETS).astype("float32")
SPIKES = np.where(RNG.uniform(size=(64, 6)) < 0.1, np.inf, TABLE).astype("float32")

CASES = {
    # name: the remedy, x, y
    "initializers": (
        Reinitialize(
            {
                "kernel_initializer": Scheme("HeNormal", {"gain": "gelu"}),
                "depthwise_initializer": Scheme(
                    "VarianceScaling", {"scale": 1.235, "input_axes": [0, 1], "output_axes": [0, 1, 3]}
                ),
                "recurrent_initializer": Scheme("Orthogonal", {"blocks": 4}),
                "embeddings_initializer": Scheme("RandomNormal", {"stddev": 0.05}),
                "bias_initializer": Scheme("Zeros"),
            },
            {"bias_initializer": ("Dense", 'a"b\nimport os')},
            ("hidden",),
        ),
        TABLE,
        TARGETS,
    ),
    "normalization": (PlainNormalization(("norm",)), TABLE, TARGETS),
    "activation": (
        Activate("selu", ("hidden",), Reinitialize({"kernel_initializer": Scheme("LeCunNormal")}, layers=("hidden",))),
        TABLE,
        TARGETS,
    ),
    "activation alone": (Activate("tanh", ("hidden",)), TABLE, TARGETS),
    "width": (Widen(32, ("hidden",)), TABLE, TARGETS),
    "whole model": (WholeModel(), TABLE, TARGETS),
    "bytes": (Preprocess("bytes"), TABLE, TARGETS),
    "standardize": (Preprocess("standardize"), TABLE, TARGETS),
    "columns": (Preprocess("columns"), SCALES * TABLE + SCALES, TARGETS),
    "columns of one of several": (Preprocess("columns", ('a"b',)), PARTS, TARGETS),
    "standardize one of several": (Preprocess("standardize", ('a"b',)), PARTS, TARGETS),
    "tiny, one of several": (Preprocess("tiny", ("it's\n",)), PARTS, TARGETS),
    "scale targets": (ScaleTargets(), TABLE, TARGETS),
    "clean inputs": (CleanData("inputs"), SPIKES, TARGETS),
    "clean targets": (CleanData("targets"), TABLE, HOLES),
    "bias": (SetBias(("head",)), TABLE, TARGETS),
    "learning rate": (LearningRate(3e-4), TABLE, TARGETS),
    "together": (Together((WholeModel(), ScaleTargets(), LearningRate(0.03))), TABLE, TARGETS),
    "policy": (Policy("mixed_bfloat16"), TABLE, TARGETS),
}

PROGRAM = """
import json, sys
import numpy as np
import keras
folder = sys.argv[1]
done = {}
for name, code, several in json.load(open(f"{folder}/cases.json")):
    keras.utils.set_random_seed(7)
    data = np.load(f"{folder}/{name}.npz")
    x = {key: data[f"x{i}"] for i, key in enumerate(several)} if several else data["x"]
    names = {"model": keras.saving.load_model(f"{folder}/model.keras"), "x": x, "y": data["y"]}
    exec(code, names)
    made = {key: value for key, value in names.items() if key.endswith("_initializer")}
    started = {key: [type(value).__name__, value.get_config()] for key, value in made.items() if type(value) is not str}
    written = ("activation", "units", "gamma_initializer", "beta_initializer")
    by_name = {key: names[key] for key in written if key in names}
    np.savez(
        f"{folder}/{name}.out.npz",
        y=names["y"],
        weights=np.concatenate([np.ravel(weight) for weight in names["model"].get_weights()]),
        rate=float(names["model"].optimizer.learning_rate),
        **{f"x{i}": value for i, value in enumerate(keras.tree.flatten(names["x"]))},
        **{f"p{i}": np.asarray(names["preprocessing"](value)) for i, value in enumerate(keras.tree.flatten(x))
           if "preprocessing" in names},
    )
    done[name] = {"started": started, "by_name": by_name, "policy": keras.config.dtype_policy().name}
    keras.config.set_dtype_policy("float32")
print(json.dumps(done))
"""


def network():
    hidden = layers.Dense(8, "relu", kernel_initializer="ones", name="hidden")
    norm = layers.BatchNormalization(gamma_initializer="zeros", beta_initializer="ones", name="norm")
    model = keras.Sequential([keras.Input((6,)), hidden, norm, layers.Dense(1, name="head")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the code of each remedy did, and the model that it was run on."""
    folder = tmp_path_factory.mktemp("code")
    model = network()
    model.save(folder / "model.keras")
    cases = []
    for name, (remedy, x, y) in CASES.items():
        several = list(x) if isinstance(x, dict) else []
        parts = {f"x{i}": value for i, value in enumerate(x.values())} if several else {"x": x}
        np.savez(folder / f"{name}.npz", y=y, **parts)
        cases.append((name, remedy.code, several))
    (folder / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, model, json.loads(done.stdout.splitlines()[-1])


def without_seed(config):
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items() if key != "seed"}


@pytest.mark.parametrize("name", CASES)
def test_the_code_does_what_apply_does(ran, name):
    folder, _, done = ran
    remedy, x, y = CASES[name]
    out = np.load(folder / f"{name}.out.npz")
    start = remedy.start if isinstance(remedy, Activate) else remedy
    if isinstance(start, Reinitialize | SetBias):
        schemes = start.schemes if isinstance(start, Reinitialize) else {}
        started = {argument: made(scheme) for argument, scheme in schemes.items()}
        if isinstance(start, SetBias):
            started = {"bias_initializer": keras.initializers.Constant(float(np.mean(y)))}
        expected = {a: [type(i).__name__, without_seed(i.get_config())] for a, i in started.items()}
        assert {a: [kind, without_seed(config)] for a, (kind, config) in done[name]["started"].items()} == expected
    if isinstance(remedy, Policy):
        assert done[name]["policy"] == remedy.name
        return
    assert done[name]["policy"] == "float32"
    if isinstance(remedy, Widen):
        assert done[name]["by_name"] == {"units": 32}
        return
    keras.utils.set_random_seed(7)
    model = keras.saving.load_model(folder / "model.keras")
    data, targets = apply(remedy, model, keras.tree.map_structure(ops.convert_to_tensor, (x, y)))
    np.testing.assert_allclose(ops.convert_to_numpy(targets), out["y"], rtol=1e-6)
    assert float(model.optimizer.learning_rate) == pytest.approx(float(out["rate"]))
    if isinstance(remedy, Activate):
        assert done[name]["by_name"] == {"activation": remedy.activation}
        assert model.get_layer("hidden").activation is getattr(keras.activations, remedy.activation)
    if isinstance(remedy, PlainNormalization):
        assert done[name]["by_name"] == {"gamma_initializer": "ones", "beta_initializer": "zeros"}
        written = layers.BatchNormalization(**done[name]["by_name"])
        written.build((None, 8))
        for weight in ("gamma", "beta"):
            applied = getattr(model.get_layer("norm"), weight)
            np.testing.assert_array_equal(applied.numpy(), getattr(written, weight).numpy())
    if isinstance(remedy, WholeModel | Together):
        weights = np.concatenate([np.ravel(weight) for weight in model.get_weights()])
        np.testing.assert_array_equal(weights, out["weights"])
    changed = [
        i
        for i, (before, after) in enumerate(zip(keras.tree.flatten(x), keras.tree.flatten(data), strict=True))
        if not np.array_equal(before, ops.convert_to_numpy(after))
    ]
    kind = "p" if isinstance(remedy, Preprocess) else "x"
    for i, leaf in enumerate(keras.tree.flatten(data)):
        if i in changed or kind == "x":
            np.testing.assert_allclose(ops.convert_to_numpy(leaf), out[f"{kind}{i}"], rtol=1e-5, atol=1e-5)
    acts_on_inputs = isinstance(remedy, Preprocess) or (isinstance(remedy, CleanData) and remedy.part == "inputs")
    assert len(changed) == 1 or not acts_on_inputs


def test_apply_changes_the_weights_that_a_remedy_names_and_no_other(ran):
    wanted = {
        "initializers": [1, 0, 0, 0, 0, 0, 0, 0],
        "bias": [0, 0, 0, 0, 0, 0, 0, 1],
        "whole model": [1, 0, 0, 0, 0, 0, 1, 0],
        "normalization": [0, 0, 1, 1, 0, 0, 0, 0],
        "together": [1, 0, 0, 0, 0, 0, 1, 0],
        "activation": [1, 0, 0, 0, 0, 0, 0, 0],
        "activation alone": [0, 0, 0, 0, 0, 0, 0, 0],
    }
    for name, changes in wanted.items():
        remedy, x, y = CASES[name]
        model = network()
        before = [np.array(weight) for weight in model.get_weights()]
        apply(remedy, model, (x, y))
        changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
        assert changed == changes, name


def test_targets_that_are_dropped_take_their_samples_and_weights_with_them():
    remedy, x, _ = CASES["clean targets"]
    weight = np.arange(64.0, dtype="float32")
    kept = np.isfinite(HOLES[:, 0])
    assert 0 < kept.sum() < 64
    data = apply(remedy, network(), keras.tree.map_structure(ops.convert_to_tensor, (x, HOLES, weight)))
    for part, whole in zip(data, (x, HOLES, weight), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(part), whole[kept])


def test_every_remedy_is_tried():
    assert {type(remedy).__name__ for remedy, _, _ in CASES.values()} == set(REMEDIES)


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        'a"b',
        "it's",
        "both \" and '",
        "line\nbreak",
        "\\",
        "\U0001f600\ud800",
        "",
        0.1,
        2.0,
        1e-05,
        1 / 3,
        3,
        [1],
    ],
)
def test_a_literal_is_the_value_that_it_stands_for(value):
    again = eval(literal(value))
    assert again == (tuple(value) if isinstance(value, list) else value)
    assert "\n" not in literal(value)


def test_a_literal_in_double_quotes_is_preferred():
    assert (literal("gelu"), literal("it's"), literal('a"b')) == ('"gelu"', '"it\'s"', "'a\"b'")


def test_what_a_built_model_cannot_take_is_refused_with_what_to_write():
    with pytest.raises(ValueError, match="give hidden units=32 and build it again"):
        apply(CASES["width"][0], network(), ())
    model = network()
    with pytest.raises(ValueError, match="the layer 'norm' has no activation"):
        apply(Activate("tanh", ("hidden", "norm")), model, ())
    assert model.get_layer("hidden").activation is keras.activations.relu  # nothing was changed by half
