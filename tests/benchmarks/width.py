"""Learning rate transfer: is the best learning rate of a small model that of a large one, with muP and without?

    python tests/benchmarks/width.py run --out width.json [--small] [--task digits]
    python tests/benchmarks/width.py report width.json [--picture .github/images/width.svg] [--hold]

Two tasks on real data, each with Adam at nine rates and three seeds: a ReLU network on scikit-learn's digits, and a
small transformer that predicts the next character of the texts that Python ships for its `help`. With muP a model is
started by `initialize(model, "mup", base=...)` and trained with `mup_optimizer`, without by `initialize(model)` and
plain Adam; the base has width 64, where both are the same.

A run that was stopped goes on where it was. `report` prints the loss of each rate and how far the best one moves from
width 64 to the largest, then the slopes of the coordinate check; with `--hold` its exit status says whether muP keeps
the best rate within a factor of 2 and the slopes within 0.1 of zero.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

BASE = 64
WIDTHS = (64, 128, 256, 512, 1024)
SMALL_WIDTHS = (64, 512)
SCHEMES = ("standard", "mup")
NAMES = {"standard": "without muP", "mup": "with muP"}
COLOURS = ("#4a90d9", "#2b6cb0", "#6b46c1", "#b83280", "#c9252d")
SEEDS = 3
KEY = ("task", "scheme", "width", "rate", "seed")


@dataclass(frozen=True)
class Task:
    """What is learnt: the data, and the model of a width."""

    data: Callable[[], tuple[Any, Any]]
    build: Callable[[int], Any]
    steps: int
    batch: int
    judged: int
    """Number of samples, the first ones, whose loss is compared."""


def digits() -> tuple[Any, Any]:
    """All 1797 images, scaled to 0 to 1."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.data / 16).astype("float32"), found.target.astype("int32")


def network(width: int) -> Any:
    """Three hidden ReLU layers."""
    import keras

    layers = [keras.layers.Dense(width, "relu") for _ in range(3)]
    return keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])


LENGTH = 16


def text() -> tuple[Any, Any]:
    """Windows of 16 characters of Python's help topics, and the same one character on."""
    from pydoc_data.topics import topics

    characters = "\n".join(topics[name] for name in sorted(topics))[:200_000]
    ids = {character: number for number, character in enumerate(sorted(set(characters)))}
    numbers = np.array([min(ids[character], 127) for character in characters], "int32")
    starts = range(0, len(numbers) - LENGTH - 1, LENGTH)
    return (
        np.stack([numbers[start : start + LENGTH] for start in starts]),
        np.stack([numbers[start + 1 : start + LENGTH + 1] for start in starts]),
    )


def transformer(width: int) -> Any:
    """One pre-normalised block with four heads, whatever the width."""
    import keras
    from keras import layers

    inputs = keras.Input((LENGTH,), dtype="int32")
    positions = layers.Embedding(LENGTH, width)(keras.ops.broadcast_to(keras.ops.arange(LENGTH), (1, LENGTH)))
    x = layers.Add()([layers.Embedding(128, width)(inputs), positions])
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(4, width // 4)(y, y, use_causal_mask=True)])
    y = layers.Dense(width, "gelu")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(width)(y)])
    return keras.Model(inputs, layers.Dense(128)(layers.LayerNormalization()(x)))


RATES = tuple(2.0**power for power in range(-12, -3))
TASKS = {
    "digits": Task(digits, network, steps=112, batch=64, judged=1792),
    "text": Task(text, transformer, steps=40, batch=16, judged=256),
}


def parts(optimizer: Any) -> list[Any]:
    """The optimizers of a model: of each class of weights, or the one."""
    return list(getattr(optimizer, "optimizers", [optimizer]))


class Runs:
    """All runs of one model: it is made and compiled once, and started anew for each rate and seed."""

    def __init__(self, task: Task, width: int, scheme: str) -> None:
        import keras

        from keras_initaudit import mup_optimizer

        self.task, self.scheme = task, scheme
        self.model, self.base = task.build(width), task.build(BASE)
        optimizer = keras.optimizers.Adam(1.0)
        if scheme == "mup":
            optimizer = mup_optimizer(optimizer, self.model, self.base)
        self.model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
        optimizer.build(self.model.trainable_variables)
        self.state = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]
        self.factors = [float(keras.ops.convert_to_numpy(part.learning_rate)) for part in parts(optimizer)]
        self.x, self.y = task.data()

    def loss(self, rate: float, seed: int) -> float:
        """The loss on a fixed part of the data after the task's updates; infinite where it is not finite."""
        task, optimizer = self.task, self.model.optimizer
        self.start(seed)
        for variable, value in zip(optimizer.variables, self.state, strict=True):
            variable.assign(value)
        for part, factor in zip(parts(optimizer), self.factors, strict=True):
            part.learning_rate = rate * factor
        order = np.random.default_rng(seed).permutation(len(self.x))
        chosen = np.resize(order, task.steps * task.batch)
        self.model.fit(self.x[chosen], self.y[chosen], batch_size=task.batch, shuffle=False, verbose=0)
        last = float(self.model.evaluate(self.x[: task.judged], self.y[: task.judged], batch_size=128, verbose=0))
        return last if math.isfinite(last) else math.inf

    def start(self, seed: int | None) -> None:
        """A new start by the scheme."""
        from keras_initaudit import initialize

        if self.scheme == "mup":
            initialize(self.model, "mup", base=self.base, seed=seed)
        else:
            initialize(self.model, seed=seed)


def run(options: argparse.Namespace) -> None:
    """Makes the runs that the file lacks, and adds a line for each; then the slopes of the coordinate check."""
    out = Path(options.out)
    done = {key(line) for line in lines(out)}
    widths, rates, seeds = (SMALL_WIDTHS, RATES[::2], 2) if options.small else (WIDTHS, RATES, SEEDS)
    tasks = ("digits",) if options.small else options.tasks
    for name in tasks:
        # The ends first, so that what is there of a run that was stopped says the most.
        for width in sorted(widths, key=lambda width: -abs(math.log(width / math.sqrt(widths[0] * widths[-1])))):
            for scheme in ("standard",) if width == BASE else SCHEMES:
                wanted = [(name, scheme, width, rate, seed) for seed in range(seeds) for rate in rates]
                missing = [one for one in wanted if one not in done]
                runs = Runs(TASKS[name], width, scheme) if missing else None
                for one in missing:
                    begun = time.perf_counter()
                    loss = runs.loss(*one[3:])
                    add(out, dict(zip(KEY, one, strict=True)) | {"loss": loss, "seconds": time.perf_counter() - begun})
    for name in tasks:
        for scheme in SCHEMES:
            if (name, scheme) not in {(line["task"], line["scheme"]) for line in lines(out) if "slopes" in line}:
                add(out, {"task": name, "scheme": scheme, "slopes": slopes(TASKS[name], scheme, widths, seeds)})


def slopes(task: Task, scheme: str, widths: Iterable[int], seeds: int) -> list[tuple[str, float, float]]:
    """(layer, slope of the change, its standard error) at the middle one of the rates."""
    import keras

    from keras_initaudit import coordinate_check

    def build(width: int) -> Any:
        runs = Runs(task, width, scheme)
        runs.start(None)
        for part, factor in zip(parts(runs.model.optimizer), runs.factors, strict=True):
            part.learning_rate = RATES[len(RATES) // 2] * factor
        return runs.model

    x, y = task.data()
    check = coordinate_check(build, list(widths), x[: task.batch], y[: task.batch], seeds=seeds)
    keras.backend.clear_session()
    return [(row.layer, row.change, row.change_error) for row in check.rows]


def add(path: Path, line: dict[str, Any]) -> None:
    """Adds a line to a file of runs, and prints it."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def lines(path: Path) -> list[dict[str, Any]]:
    """What a file holds."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key(line: dict[str, Any]) -> tuple[Any, ...]:
    """What tells one run from another."""
    return tuple(line.get(name) for name in KEY)


# --- the report


Curves = dict[int, dict[float, float]]
"""Width -> rate -> mean loss of the seeds."""


def curves(found: list[dict[str, Any]], task: str, scheme: str) -> Curves:
    """The mean losses of a task; at the base both schemes are the same. Rates that lack a seed are left out."""
    losses: dict[int, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in found:
        if "loss" in line and line["task"] == task and (line["scheme"] == scheme or line["width"] == BASE):
            losses[line["width"]][line["rate"]].append(line["loss"])
    seeds = max((len(all_) for rates in losses.values() for all_ in rates.values()), default=0)
    means = {
        width: {rate: sum(all_) / seeds for rate, all_ in sorted(rates.items()) if len(all_) == seeds}
        for width, rates in sorted(losses.items())
    }
    most = max((len(rates) for rates in means.values()), default=0)
    return {width: rates for width, rates in means.items() if len(rates) == most}


def best(rates: dict[float, float]) -> float:
    """The rate with the least loss."""
    return min(rates, key=lambda rate: rates[rate])


def moved(found: Curves) -> float:
    """By what factor the best rate of the largest width differs from that of the base."""
    ratio = best(found[max(found)]) / best(found[BASE])
    return max(ratio, 1 / ratio)


def report(options: argparse.Namespace) -> None:
    """Prints the tables; with `--hold`, ends with 1 where muP does not hold what it is to."""
    found = [line for path in options.paths for line in lines(Path(path))]
    failed = []
    for task in [name for name in TASKS if any(line["task"] == name for line in found)]:
        for scheme in SCHEMES:
            of_scheme = curves(found, task, scheme)
            if BASE not in of_scheme or len(of_scheme) < 2:
                continue
            factor = moved(of_scheme)
            print(f"\n{task}, {NAMES[scheme]}: from width {BASE} to {max(of_scheme)} the best rate moves by {factor:g}")
            print(f"{'width':>8}" + "".join(f"{rate:>10.2g}" for rate in of_scheme[BASE]))
            for width, rates in of_scheme.items():
                print(
                    f"{width:>8}" + "".join(f"{loss:>9.3g}{' *'[rate == best(rates)]}" for rate, loss in rates.items())
                )
            if (factor > 2) if scheme == "mup" else (factor < 4):
                failed.append(f"{task}, {NAMES[scheme]}: the best rate moves by {factor:g}")
    for line in found:
        if "slopes" in line:
            print(f"\n{line['task']}, {NAMES[line['scheme']]}: slope of the change of each layer against the width")
            for layer, slope, error in line["slopes"]:
                print(f"    {layer:<34}{slope:+.2f} +- {error:.2f}")
            largest = max(abs(slope) for _, slope, _ in line["slopes"])
            if (largest > 0.1) == (line["scheme"] == "mup"):
                failed.append(f"{line['task']}, {NAMES[line['scheme']]}: the largest slope is {largest:.2f}")
    seconds = sum(line.get("seconds", 0.0) for line in found)
    print(f"\n{sum('loss' in line for line in found)} runs in {seconds / 60:.0f} minutes")
    if options.picture:
        Path(options.picture).write_text(picture(found, options.task))
    print("\n".join(failed) or "all that muP is to hold is held")
    if options.hold and failed:
        sys.exit(1)


def picture(found: list[dict[str, Any]], task: str) -> str:
    """Loss against rate, a curve a width, without muP and with it."""
    from keras_initaudit.report.width import Panel, panels_svg

    panels = []
    for scheme in SCHEMES:
        of_scheme = curves(found, task, scheme)
        finite = {
            f"width {w}": [(r, v) for r, v in rates.items() if math.isfinite(v)] for w, rates in of_scheme.items()
        }
        colours = {f"width {width}": COLOURS[WIDTHS.index(width)] for width in of_scheme}
        marks = {f"width {width}": (best(rates), rates[best(rates)]) for width, rates in of_scheme.items()}
        panels.append(Panel(NAMES[scheme], finite, colours, marks))
    return panels_svg(panels, "learning rate", "loss", background="#fff") + "\n"


def main() -> None:
    """Runs, or reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run")
    command.add_argument("--out", required=True)
    command.add_argument("--small", action="store_true")
    command.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    command.set_defaults(do=run)
    command = commands.add_parser("report")
    command.add_argument("paths", nargs="+")
    command.add_argument("--picture")
    command.add_argument("--task", choices=TASKS, default="digits")
    command.add_argument("--hold", action="store_true")
    command.set_defaults(do=report)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
