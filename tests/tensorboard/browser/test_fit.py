"""From `fit` to the picture: a real audit, beside Keras's own TensorBoard callback in the same log folder."""

import math
import os

import chromium
import numpy as np
import pytest
from tensorboard_server import tensorboard
from test_page import all_of, drawn_decades, head_text, one, text_of, until

from keras_initaudit.tensorboard.reader import read_runs

pytestmark = pytest.mark.slow


def test_a_watched_fit_is_drawn_as_it_was_measured(chrome, tmp_path):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from sklearn.datasets import load_digits

    from keras_initaudit import HeNormal, InitAudit, RandomNormal

    data = load_digits()
    x, y = (data.data / 16).astype("float32"), data.target
    logs = tmp_path / "logs"
    for name, start in (("good", HeNormal), ("bad", lambda: RandomNormal(stddev=0.05))):
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Dense(64, activation="relu", kernel_initializer=start()) for _ in range(15)]
        model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10, activation="softmax")])
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
        watch = InitAudit(log_dir=str(logs / name), verbose=0)
        stock = keras.callbacks.TensorBoard(str(logs / name), histogram_freq=1)
        model.fit(x, y, epochs=2, verbose=0, validation_split=0.1, callbacks=[watch, stock])

    runs = {run.name: run for run in read_runs(logs)}
    assert set(runs) == {"good/initaudit", "bad/initaudit"}
    chromium.errors(chrome)
    with tensorboard(tmp_path, logs) as server:
        assert len(server.runs(2)) == 2
        tags = until(lambda: server.json("data/plugin/scalars/tags"))
        assert {"good/train", "good/validation", "good/initaudit"} <= set(tags)
        chromium.open_tab(chrome, server.address)
        cards = {card.get_attribute("data-run"): one(card, ".chip").text for card in all_of(chrome, ".card")}
        assert cards == {"bad/initaudit": "BAD", "good/initaudit": "HEALTHY"}
        last = runs["bad/initaudit"].snapshots[-1]
        assert f"step {last.step}" in head_text(chrome)
        assert "vanishing-signal" in text_of(chrome, ".findings")
        assert "from keras_initaudit import" in text_of(chrome, ".findings pre")
        rows = [row for layer, row in zip(last.layers, last.statistics, strict=True) if layer.role == "layer"]
        expected = [math.log10(row.activation_rms) if row.activation_rms > 0 else -math.inf for row in rows]
        visible = [level for level in expected if level > -10]
        np.testing.assert_allclose(drawn_decades(chrome, "activation"), visible, atol=16 / 250)
        assert chromium.errors(chrome) == []
        chrome.get("about:blank")
