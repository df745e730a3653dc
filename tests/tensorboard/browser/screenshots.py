"""Makes the pictures of the README: the tab with bad starts beside their repaired twins, on real digits.

    python tests/tensorboard/browser/screenshots.py [--into .github/images] [--logs folder]

Trains each network twice with `InitAudit`, starts TensorBoard on the log, and photographs the tab.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(HERE)]

import chromium  # noqa: E402  found through the line above
from tensorboard_server import tensorboard  # noqa: E402

PICTURES = {
    # a transformer with a bad start, laid over its repaired twin
    "page.png": {"run": "transformer_normal_1", "with": "transformer_glorot", "size": (1500, 1560)},
    "page-healthy.png": {"run": "transformer_glorot", "size": (1500, 1180)},
    "page-dark.png": {"run": "relu_normal_0.05", "size": (1500, 1560), "dark": True},
    "trial.png": {"run": "relu_normal_0.05", "size": (1500, 1600), "part": ".finding"},
}


def networks() -> dict[str, Any]:
    """Name of a run -> what makes its model, and the form of the digits that it takes."""
    import keras
    from keras import layers
    from keras.initializers import RandomNormal

    from keras_initaudit import HeNormal

    def dense(start: Any) -> Any:
        hidden = [layers.Dense(64, activation="relu", kernel_initializer=start()) for _ in range(20)]
        return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10, activation="softmax")])

    def transformer(start: Any, width: int = 64) -> Any:
        given = keras.Input((32,), dtype="int32")
        x = layers.Embedding(17, width, name="tokens")(given)
        for k in range(6):
            h = layers.LayerNormalization(name=f"block{k}_norm1")(x)
            h = layers.MultiHeadAttention(4, 16, kernel_initializer=start(), name=f"block{k}_attention")(h, h)
            x = layers.Add(name=f"block{k}_add1")([x, h])
            h = layers.LayerNormalization(name=f"block{k}_norm2")(x)
            h = layers.Dense(4 * width, activation="gelu", name=f"block{k}_up")(h)
            x = layers.Add(name=f"block{k}_add2")([x, layers.Dense(width, name=f"block{k}_down")(h)])
        x = layers.GlobalAveragePooling1D(name="pool")(layers.LayerNormalization(name="norm")(x))
        return keras.Model(given, layers.Dense(10, activation="softmax", name="head")(x))

    def resnet(start: Any, normalised: bool) -> Any:
        given = keras.Input((8, 8, 1))
        x = layers.Conv2D(16, 3, padding="same", kernel_initializer=start(), name="stem")(given)
        for k in range(8):
            h = x
            for part in "ab":
                h = layers.BatchNormalization(name=f"block{k}_{part}_bn")(h) if normalised else h
                h = layers.Activation("relu", name=f"block{k}_{part}_relu")(h)
                h = layers.Conv2D(16, 3, padding="same", kernel_initializer=start(), name=f"block{k}_{part}_conv")(h)
            x = layers.Add(name=f"block{k}_add")([x, h])
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        return keras.Model(given, layers.Dense(10, activation="softmax", name="head")(x))

    def glorot() -> str:
        return "glorot_uniform"

    return {
        "relu_he_normal": (lambda: dense(HeNormal), "pixels"),
        "relu_normal_0.05": (lambda: dense(lambda: RandomNormal(stddev=0.05)), "pixels"),
        "resnet_he_normal": (lambda: resnet(HeNormal, True), "images"),
        "resnet_normal_1": (lambda: resnet(lambda: RandomNormal(stddev=1.0), False), "images"),
        "transformer_glorot": (lambda: transformer(glorot), "tokens"),
        "transformer_normal_1": (lambda: transformer(lambda: RandomNormal(stddev=1.0)), "tokens"),
    }


def train(logs: Path) -> None:
    """Each network from its start, watched by the audit."""
    import keras
    from sklearn.datasets import load_digits

    from keras_initaudit import InitAudit

    data = load_digits()
    pixels = (data.data / 16).astype("float32")
    forms = {
        "pixels": pixels,
        "images": pixels.reshape(-1, 8, 8, 1),
        "tokens": data.data[:, ::2].astype("int32"),  # the grey levels of every other pixel, as words
    }
    for name, (model, form) in networks().items():
        keras.utils.set_random_seed(1)
        keras.backend.clear_session()
        made = model()
        made.compile("adam", "sparse_categorical_crossentropy")
        audit = InitAudit(log_dir=str(logs / name), verbose=0, on_finding="silent")
        made.fit(forms[form], data.target, epochs=2, verbose=0, callbacks=[audit])


def photograph(logs: Path, into: Path, folder: Path) -> None:
    """One picture for each entry of `PICTURES`."""
    into.mkdir(parents=True, exist_ok=True)
    with tensorboard(folder, logs) as server:
        runs = server.runs(len(os.listdir(logs)))
        for name, view in PICTURES.items():
            with chromium.browser(*view["size"]) as driver:
                link = f"&p.initaudit.run={view['run']}%2Finitaudit"
                link += f"&p.initaudit.with={view['with']}%2Finitaudit" if "with" in view else ""
                chromium.open_tab(driver, server.address, link, dark=view.get("dark", False))
                chromium.wait_for(driver, ".card svg.profile", len(runs))
                if "part" in view:
                    driver.find_element("css selector", view["part"]).screenshot(str(into / name))
                else:
                    driver.switch_to.default_content()
                    driver.save_screenshot(str(into / name))
                print(into / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / ".github" / "images")
    parser.add_argument("--logs", type=Path, help="use this log and train nothing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        logs = given.logs or Path(name) / "logs"
        if not logs.exists():
            train(logs)
        photograph(logs, given.into, Path(name))


if __name__ == "__main__":
    main()
