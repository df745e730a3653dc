"""Makes the pictures of the README: the tab with a badly and a well initialized run of one network, on real digits.

    python tests/tensorboard/browser/screenshots.py [--into .github/images]

Trains the same deep network twice with `InitAudit`, starts TensorBoard on the log, and photographs the tab.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(HERE)]

import chromium  # noqa: E402  found through the line above
from tensorboard_server import tensorboard  # noqa: E402

PICTURES = {
    "page.png": {"run": "normal_0.05", "height": 1240},
    "page-healthy.png": {"run": "he_normal", "height": 1240},
    "page-dark.png": {"run": "normal_0.05", "height": 1240, "dark": True},
}


def train(logs: Path) -> None:
    """The same network from three starts, each watched by the audit."""
    import keras
    from sklearn.datasets import load_digits

    from keras_initaudit import HeNormal, InitAudit, RandomNormal

    data = load_digits()
    x, y = (data.data / 16).astype("float32"), data.target
    starts = {
        "he_normal": lambda: HeNormal(),
        "normal_0.05": lambda: RandomNormal(stddev=0.05),
        "normal_0.6": lambda: RandomNormal(stddev=0.6),
    }
    for name, start in starts.items():
        keras.utils.set_random_seed(1)
        keras.backend.clear_session()
        layers = [keras.layers.Dense(64, activation="relu", kernel_initializer=start()) for _ in range(20)]
        model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10, activation="softmax")])
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
        audit = InitAudit(log_dir=str(logs / name), verbose=0)
        model.fit(x, y, epochs=4, verbose=0, callbacks=[audit])


def photograph(logs: Path, into: Path, folder: Path) -> None:
    """One picture for each entry of `PICTURES`."""
    into.mkdir(parents=True, exist_ok=True)
    with tensorboard(folder, logs) as server:
        runs = server.runs(len(os.listdir(logs)))
        for name, view in PICTURES.items():
            with chromium.browser(1360, view["height"]) as driver:
                link = f"&p.initaudit.run={view['run']}%2Finitaudit"
                chromium.open_tab(driver, server.address, link, dark=view.get("dark", False))
                chromium.wait_for(driver, ".card svg.profile", len(runs))
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
