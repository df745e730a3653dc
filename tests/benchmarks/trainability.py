"""The ground truth: does the verdict at initialization predict which networks learn?

Thousands of small networks are started in many ways, audited, and trained for a few hundred steps on
scikit-learn's digits. How much of the way from chance to what the same network reaches from the recommended scheme has
a start gone by then? Under a quarter: it is bad. Over three quarters: it is good. What lies between is slow, and stands
in a row of its own. Networks that do not learn from the recommended start either are left out.

    python tests/benchmarks/trainability.py run --out study.jsonl.gz [--minutes 20] [--part 0/4] [--small]
    python tests/benchmarks/trainability.py report study.jsonl.gz [--half report|choose|all] [--map]

`run` goes on where an earlier one stopped, and several parts can run at the same time, each with its own file. `report`
prints recall, false alarms and area under the curve, overall and by family, and the boundary of depth against scale.
The architectures stand in random order. Thresholds are chosen on the first of them, and what the package claims is what
it reaches on the rest, on which none was chosen.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gzip
import hashlib
import json
import math
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from keras_initaudit.diagnosis import Thresholds, diagnose
from keras_initaudit.records import Finding, Snapshot, dumps, snapshot_from_json

STEPS, BATCH, CLASSES = 300, 64, 10
CHANCE = 1.0 / CLASSES
CHOOSE = 400
"""The first architectures, on which thresholds are chosen."""
LEARNS = 0.75
"""Accuracy from which the recommended start counts as learning; below it, what tells two starts apart is chance."""


@dataclass(frozen=True)
class Architecture:
    """One network that is started in many ways; built and traced once."""

    family: str
    depth: int
    width: int
    activation: str
    norm: str
    residual: bool
    optimizer: str

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def half(self) -> str:
        """`choose` or `report`: by architecture, so that no network of one half has a twin in the other."""
        return "choose" if self.key in _chosen() else "report"


@functools.cache
def _chosen() -> frozenset[str]:
    return frozenset(a.key for a in architectures(small=False)[:CHOOSE])


def architectures(small: bool) -> list[Architecture]:
    """The architectures, in an order in which any beginning is a fair sample of the whole."""
    generator = np.random.default_rng(7)
    activations = ["relu", "tanh", "sigmoid", "gelu", "selu", "silu", "elu", "leaky_relu"]
    weights = [0.3, 0.2, 0.13, 0.12, 0.07, 0.06, 0.06, 0.06]
    found: dict[str, Architecture] = {}
    while len(found) < (16 if small else 720):
        family = str(generator.choice(["dense", "conv", "recurrent", "attention"], p=[0.76, 0.06, 0.1, 0.08]))
        activation = str(generator.choice(activations, p=weights))
        optimizer = str(generator.choice(["adam", "sgd"], p=[0.6, 0.4]))
        norm = str(generator.choice(["none", "batch", "layer"], p=[0.7, 0.15, 0.15]))
        residual = bool(generator.random() < 0.2)
        depths = {
            "dense": [2, 4, 6, 8, 12, 16, 24, 32, 48, 64],
            "conv": [2, 4],
            "recurrent": [1, 2, 3],
            "attention": [1, 2],
        }
        depth = int(generator.choice(depths[family]))
        width = int(generator.choice([16, 32, 64, 128]))
        if small:
            depth, width = min(depth, 12), min(width, 32)
        if family == "conv":
            width = min(width, 16)  # a step of a wide one takes 50 ms
        if depth > 16:
            width = min(width, 64)
        if family == "recurrent":
            activation, norm, residual = str(generator.choice(["lstm", "gru", "rnn"])), "none", False
        if family == "attention":
            width, norm, residual = 32, str(generator.choice(["none", "layer"])), True
        one = Architecture(family, depth, width, activation, norm, residual, optimizer)
        found.setdefault(one.key, one)
    return list(found.values())


def build(a: Architecture) -> Any:
    """The Keras model; layers that end on `head` make the logits."""
    import keras
    from keras import layers

    def normalised(h: Any) -> Any:
        if a.norm == "batch":
            return layers.BatchNormalization()(h)
        return layers.LayerNormalization()(h) if a.norm == "layer" else h

    def block(h: Any, layer: Any) -> Any:
        out = layers.Activation(a.activation)(normalised(layer(h)))
        return layers.Add()([h, out]) if a.residual and h.shape == out.shape else out

    if a.family == "dense":
        inputs = h = keras.Input((64,))
        for _ in range(a.depth):
            h = block(h, layers.Dense(a.width))
    elif a.family == "conv":
        inputs = keras.Input((64,))
        h = layers.Reshape((8, 8, 1))(inputs)
        for _ in range(a.depth):
            h = block(h, layers.Conv2D(a.width, 3, padding="same"))
        h = layers.GlobalAveragePooling2D()(h)
    elif a.family == "recurrent":
        kind = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}[a.activation]
        inputs = keras.Input((64,))
        h = layers.Reshape((8, 8))(inputs)
        for i in range(a.depth):
            h = kind(a.width, return_sequences=i < a.depth - 1)(h)
    else:
        inputs = keras.Input((64,))
        h = layers.Dense(a.width)(layers.Reshape((8, 8))(inputs))
        for _ in range(a.depth):
            h = layers.Add()([h, layers.MultiHeadAttention(2, a.width // 2)(normalised(h), normalised(h))])
            wide = layers.Dense(2 * a.width, activation=a.activation)(normalised(h))
            h = layers.Add()([h, layers.Dense(a.width)(wide)])
        h = layers.GlobalAveragePooling1D()(normalised(h))
    model = keras.Model(inputs, layers.Dense(CLASSES, name="head")(h))
    # Rates at which healthy networks of this size learn.
    optimizer = keras.optimizers.Adam(1e-3) if a.optimizer == "adam" else keras.optimizers.SGD(0.02, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    return model


@dataclass(frozen=True)
class Start:
    """One way to draw the kernels: a rule for the standard deviation, times a factor, and a bias."""

    name: str
    law: str = "normal"
    scale: float = 1.0
    bias: float = 0.0
    bias_std: float = 0.0
    inputs: float = 1.0
    """Factor on the data."""
    head: bool = True
    """Whether the head is started like the rest (else as Glorot says)."""


STARTS: tuple[Start, ...] = (
    Start("glorot", "glorot"),
    Start("he", "he"),
    Start("lecun", "lecun"),
    Start("normal_0.01", "fixed", 0.01),
    Start("normal_0.05", "fixed", 0.05),
    Start("normal_0.2", "fixed", 0.2),
    Start("normal_1", "fixed", 1.0),
    Start("x0.1", "recommended", 0.1, head=False),
    Start("x0.3", "recommended", 0.3, head=False),
    Start("x0.6", "recommended", 0.6, head=False),
    Start("x1.5", "recommended", 1.5, head=False),
    Start("x2", "recommended", 2.0, head=False),
    Start("x4", "recommended", 4.0, head=False),
    Start("orthogonal", "orthogonal"),
    Start("zeros", "zeros"),
    Start("constant", "constant", 0.05, head=False),
    Start("bias_-1", "recommended", bias=-1.0, head=False),
    Start("bias_-4", "recommended", bias=-4.0, head=False),
    Start("inputs_x100", "recommended", inputs=100.0, head=False),
    Start("inputs_x1e4", "recommended", inputs=1e4, head=False),
    Start("inputs_x1e-4", "recommended", inputs=1e-4, head=False),
    Start("bias_normal", "recommended", bias_std=1.0, head=False),
)


def draw(model: Any, a: Architecture, start: Start, generator: np.random.Generator) -> None:
    """Gives every kernel and bias of the model its start; normalisations and recurrent kernels start as Keras does."""
    from keras_initaudit import gain

    for layer in model.layers:
        for v in layer.trainable_variables:
            if "normalization" in layer.name:
                continue
            shape, head = tuple(v.shape), layer.name == "head"
            own = start if start.head or not head else Start("glorot", "glorot")
            if "bias" in v.path.rsplit("/", 1)[-1]:
                value = np.zeros(shape)
                if not head:
                    value += own.bias + own.bias_std * generator.normal(size=shape)
                    if a.activation == "lstm" and v.path.endswith("lstm_cell/bias"):
                        value[len(value) // 4 : len(value) // 2] += 1.0
            else:
                attention = a.family == "attention"
                recurrent = "recurrent_kernel" in v.path
                value = _kernel(shape, a, own, generator, head or attention or a.family == "recurrent", recurrent, gain)
            v.assign(value.astype("float32"))


def _kernel(
    shape: tuple[int, ...],
    a: Architecture,
    start: Start,
    generator: np.random.Generator,
    linear: bool,
    recurrent: bool,
    gain: Callable[[str], float],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    fan_in, fan_out = float(np.prod(shape[:-1])), float(shape[-1] * np.prod(shape[:-2]))
    if len(shape) == 3 and a.family == "attention":
        fan_in = float(shape[0]) if shape[0] == a.width else float(shape[0] * shape[1])
        fan_out = float(np.prod(shape)) / fan_in
    law = start.law
    if law == "recommended":
        if recurrent:
            law = "orthogonal"
        elif linear or a.activation in ("tanh", "sigmoid"):
            law = "glorot"
        else:
            law = {"relu": "he", "selu": "lecun"}.get(a.activation, "exact")
    scale = 1.0 if law == "fixed" else start.scale
    std = {
        "glorot": math.sqrt(2.0 / (fan_in + fan_out)),
        "he": math.sqrt(2.0 / fan_in),
        "lecun": math.sqrt(1.0 / fan_in),
        "exact": gain(a.activation) / math.sqrt(fan_in) if law == "exact" else 0.0,
        "fixed": start.scale,
    }
    if law == "zeros":
        return np.zeros(shape)
    if law == "constant":
        return np.full(shape, start.scale)
    if law == "orthogonal":
        rows, columns = int(np.prod(shape[:-1])), shape[-1]
        blocks = max(1, columns // rows) if recurrent else 1
        parts = []
        for _ in range(blocks):
            q, r = np.linalg.qr(generator.normal(size=(max(rows, columns // blocks), min(rows, columns // blocks))))
            q = q * np.sign(np.diag(r))
            parts.append(q if q.shape == (rows, columns // blocks) else q.T)
        stretch = 1.0 if linear or recurrent or a.activation in ("tanh", "sigmoid") else gain(a.activation)
        return (stretch * scale * np.concatenate(parts, axis=1)).reshape(shape)
    return scale * std[law] * generator.normal(size=shape)


def digits() -> tuple[Any, Any]:
    """The digits, standardised as a whole, and their classes."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x = (x - x.mean()) / x.std()
    return x[order].astype("float32"), y[order].astype("int32")


def outcomes(a: Architecture, starts: list[Start], x: Any, y: Any) -> Iterator[dict[str, Any]]:
    """Audits and trains the network from each start; the recommended start comes first, with two seeds."""
    import tensorflow as tf

    from keras_initaudit.observe.batch import first_batch, first_samples
    from keras_initaudit.observe.probe import Probe

    model = build(a)
    probe = Probe(model, first_samples(first_batch(x, y, None, size=32), 32), histograms=False)
    xs, ys = tf.Variable(x), tf.constant(y)

    @tf.function(autograph=False)
    def train(index: Any) -> Any:
        def body(i: Any) -> Any:
            rows = tf.gather(index, i)
            with tf.control_dependencies(tf.nest.flatten(model.train_step((tf.gather(xs, rows), tf.gather(ys, rows))))):
                return (i + 1,)

        return tf.while_loop(lambda i: i < STEPS, body, (tf.constant(0),))

    @tf.function(autograph=False)
    def evaluate() -> Any:
        logits = model(xs, training=False)
        right = tf.equal(tf.argmax(logits, 1, tf.int32), ys) & tf.reduce_all(tf.math.is_finite(logits), 1)
        return tf.reduce_mean(tf.cast(right, tf.float32))

    model.optimizer.build(model.trainable_variables)
    fresh = [(v, v.numpy()) for v in (*model.optimizer.variables, *model.non_trainable_variables)]
    scales = [(v, v.numpy()) for v in model.trainable_variables]
    recommended = Start("recommended", "recommended", head=False)
    for number, start in enumerate([recommended, recommended, *starts]):
        generator = np.random.default_rng([number, *hashlib.sha256(a.key.encode()).digest()[:4]])
        for v, value in (*fresh, *scales):
            v.assign(value)
        draw(model, a, start, generator)
        xs.assign(start.inputs * x)
        probe.batch = first_samples(first_batch(start.inputs * x, y, None, size=32), 32)
        snapshot = probe.measure(0)
        index = np.stack([generator.permutation(len(x))[:BATCH] for _ in range(STEPS)])
        train(tf.constant(index))
        accuracy = _accuracy_in_training_mode(model, start.inputs * x, y) if a.norm == "batch" else float(evaluate())
        yield {"architecture": asdict(a), "start": asdict(start), "accuracy": accuracy, "snapshot": snapshot}


def _accuracy_in_training_mode(model: Any, x: Any, y: Any) -> float:
    """With the statistics of the batch: the moving averages are not there yet after a few hundred steps."""
    logits = np.asarray(model(x[:512], training=True))
    return float(np.mean((logits.argmax(1) == y[:512]) & np.isfinite(logits).all(1)))


def run(out: Path, minutes: float, part: tuple[int, int], small: bool) -> None:
    """Appends to `out` until the time is over or all is done."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    done = {Architecture(**r["architecture"]).key for r in results(out)} if out.exists() else set()
    x, y = digits()
    begin = time.monotonic()
    for i, a in enumerate(architectures(small)):
        if i % part[1] != part[0] or a.key in done:
            continue
        if time.monotonic() - begin > 60 * minutes:
            print("out of time; run it again to go on")
            return
        generator = np.random.default_rng(i)
        starts = list(generator.choice(np.array(STARTS, dtype=object), 8 if small else 10, replace=False))
        keras.backend.clear_session()
        keras.utils.set_random_seed(i)
        since = time.monotonic()
        lines = [dumps(record) for record in outcomes(a, starts, x, y)]
        with gzip.open(out, "at") as file:
            file.write("\n".join(lines) + "\n")
        accuracies = " ".join(f"{json.loads(line)['accuracy']:.2f}" for line in lines)
        print(f"{i:4d} {time.monotonic() - since:5.1f} s {a} {accuracies}", flush=True)


def results(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


@dataclass(frozen=True)
class Judged:
    """One network with its truth: the recommended start learns; does this one?"""

    architecture: Architecture
    start: Start
    snapshot: Snapshot
    accuracy: float
    reference: float

    @property
    def way(self) -> float:
        """How much of the way from chance to the recommended start's accuracy it has gone."""
        return (self.accuracy - CHANCE) / (self.reference - CHANCE)

    @property
    def truth(self) -> str:
        return "bad" if self.way < 0.25 else "good" if self.way > 0.75 else "slow"


def judged(paths: list[Path], half: str = "all") -> list[Judged]:
    """Every network whose recommended start learns, with both of its seeds."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in paths:
        for record in results(path):
            groups[Architecture(**record["architecture"]).key].append(record)
    found = []
    for records in groups.values():
        a = Architecture(**records[0]["architecture"])
        recommended = [r["accuracy"] for r in records if r["start"]["name"] == "recommended"]
        reference = float(np.median(recommended))
        if min(recommended) < LEARNS or half not in ("all", a.half):
            continue
        for r in records:
            snapshot = snapshot_from_json(r["snapshot"])
            found.append(Judged(a, Start(**r["start"]), snapshot, r["accuracy"], reference))
    return found


_TIGHTENED: tuple[tuple[tuple[str, ...], Callable[[float, float], float]], ...] = (
    (
        ("signal_loss", "signal_growth", "gradient_loss", "gradient_growth", "input", "update"),
        lambda limit, t: limit * t,
    ),
    (("dead", "saturated"), lambda limit, t: limit ** (1.0 / t)),
    (("spread", "entropy", "loss", "target"), lambda limit, t: limit**t),
)
"""How the limits of a name move, its warning and its bad: decades by a factor, shares and ratios by a power."""


def tightened(thresholds: Thresholds, t: float) -> Thresholds:
    """Limits that are `t` times as hard to break; 1 leaves them as they are."""
    fields = {f.name for f in dataclasses.fields(thresholds)}
    changes: dict[str, float] = {}
    for names, move in _TIGHTENED:
        for name in names:
            for field in fields & {f"{name}_warning", f"{name}_bad"}:
                changes[field] = move(getattr(thresholds, field), t)
    return dataclasses.replace(thresholds, **changes)


def verdict(snapshot: Snapshot, thresholds: Thresholds) -> bool:
    return any(f.severity == "bad" for f in diagnose([snapshot], thresholds))


def score(snapshot: Snapshot, thresholds: Thresholds) -> float:
    """How far the limits can be moved until the verdict turns: the larger, the worse the start."""
    levels = [0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0, 1.15, 1.35, 1.6, 2.0, 3.0, 5.0, 10.0]
    return max([0.0, *(t for t in levels if verdict(snapshot, tightened(thresholds, t)))])


def area(scores: list[float], truth: list[bool]) -> float:
    """Area under the receiver operating characteristic: the chance that a bad start scores above a good one."""
    bad = np.array([s for s, t in zip(scores, truth, strict=True) if t])
    good = np.array([s for s, t in zip(scores, truth, strict=True) if not t])
    if not len(bad) or not len(good):
        return math.nan
    return float(np.mean((bad[:, None] > good[None]) + 0.5 * (bad[:, None] == good[None])))


@dataclass(frozen=True)
class Marked:
    """A network with what the verdict says of it."""

    network: Judged
    called_bad: bool
    score: float


def marked(networks: list[Judged], thresholds: Thresholds) -> list[Marked]:
    return [Marked(n, verdict(n.snapshot, thresholds), score(n.snapshot, thresholds)) for n in networks]


def summary(marks: list[Marked]) -> dict[str, float]:
    """Counts, and the share that is called bad of each kind: of the bad ones recall, of the good ones false alarms."""
    found: dict[str, float] = {"networks": len(marks)}
    for truth in ("bad", "slow", "good"):
        kind = [m for m in marks if m.network.truth == truth]
        found[truth] = len(kind)
        found[f"{truth} called bad"] = sum(m.called_bad for m in kind) / len(kind) if kind else math.nan
    clear = [m for m in marks if m.network.truth != "slow"]
    found["AUC"] = area([m.score for m in clear], [m.network.truth == "bad" for m in clear])
    return found


def report(marks: list[Marked], thresholds: Thresholds, details: bool) -> None:
    """Prints the tables."""
    rows: list[tuple[str, list[Marked]]] = [("all", marks)]
    for name, key in (
        ("family", lambda n: n.architecture.family),
        ("optimizer", lambda n: n.architecture.optimizer),
        ("norm", lambda n: n.architecture.norm),
        ("residual", lambda n: str(n.architecture.residual)),
        ("activation", lambda n: n.architecture.activation),
        ("start", lambda n: n.start.name),
    ):
        groups: dict[str, list[Marked]] = defaultdict(list)
        for m in marks:
            groups[key(m.network)].append(m)
        rows += [(f"{name} {value}", group) for value, group in sorted(groups.items())]
    print(f"{'':26s}  bad  good  slow   recall  false alarms  slow called bad    AUC")
    for name, group in rows:
        s = summary(group)
        counts = f"{s['bad']:5.0f} {s['good']:5.0f} {s['slow']:5.0f}"
        figures = (
            f"{s['bad called bad']:8.3f} {s['good called bad']:13.3f} {s['slow called bad']:16.3f} {s['AUC']:6.3f}"
        )
        print(f"{name:25s} {counts} {figures}")
    middle = [(m.network.way < 0.5, m.called_bad) for m in marks]
    recall = sum(b and said for b, said in middle) / max(1, sum(b for b, _ in middle))
    alarms = sum(said and not b for b, said in middle) / max(1, sum(not b for b, _ in middle))
    print(f"with the slow ones parted in the middle: recall {recall:.3f}, false alarms {alarms:.3f}")
    if details:
        for m in marks:
            n, said = m.network, m.called_bad
            findings = diagnose([n.snapshot], thresholds)
            if n.truth in (("good", "slow") if said else ("bad",)):
                what = "MISS " if not said else "ALARM" if n.truth == "good" else "slow "
                told = "; ".join(f"{f.severity} {f.rule}: {f.message} {_consequences(f)}" for f in findings)
                print(what, f"{n.accuracy:.2f}/{n.reference:.2f}", _short(n), "|", told[:300])


def _consequences(finding: Finding) -> list[str]:
    return [c["rule"] for c in finding.evidence.get("consequences", ())]


def _short(n: Judged) -> str:
    a = n.architecture
    return f"{a.family} {a.depth}x{a.width} {a.activation} {a.norm} res={a.residual:d} {a.optimizer} {n.start.name}"


def depth_map(marks: list[Marked], thresholds: Thresholds) -> None:
    """Depth against scale, for plain dense ReLU and tanh networks: measured, judged, and mean-field theory's boundary.

    Theory: a ReLU network that is c times too wide in standard deviation multiplies signal and gradient by c a layer,
    so that both are within D decades for depth < D / |log10 c|.
    """
    limit = thresholds.signal_loss_bad
    for activation in ("relu", "tanh"):
        print(
            f"\n{activation}: rows depth, columns factor on the recommended scale; L good, s slow, . bad; ! called bad"
        )
        cells: dict[tuple[int, float], Counter[str]] = defaultdict(Counter)
        for m in marks:
            n = m.network
            a = n.architecture
            if a.family != "dense" or a.activation != activation or a.norm != "none" or a.residual:
                continue
            if n.start.law != "recommended" or n.start.bias or n.start.bias_std:
                continue
            mark = {"bad": ".", "slow": "s", "good": "L"}[n.truth] + ("!" if m.called_bad else " ")
            cells[a.depth, n.start.scale][mark] += 1
        scales = sorted({c for _, c in cells})
        print("depth " + "".join(f"{c:>10g}" for c in scales))
        for depth in sorted({d for d, _ in cells}):
            line = [" ".join(f"{m}{k}" for m, k in sorted(cells[depth, c].items())) for c in scales]
            print(f"{depth:5d} " + "".join(f"{cell:>10s}" for cell in line))
        theory = [f"{limit / abs(math.log10(c)):.0f}" if c != 1.0 else "never" for c in scales]
        print("theory" + "".join(f"{depth:>10s}" for depth in theory) + "   (depth at which the signal is lost)")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--out", type=Path, required=True)
    runner.add_argument("--minutes", type=float, default=1e9)
    runner.add_argument("--part", default="0/1", help="i/n: every n-th architecture, from the i-th")
    runner.add_argument("--small", action="store_true", help="16 small architectures, some three minutes: for CI")
    reporter = commands.add_parser("report")
    reporter.add_argument("files", type=Path, nargs="+")
    reporter.add_argument("--half", choices=("choose", "report", "all"), default="report")
    reporter.add_argument("--map", action="store_true")
    reporter.add_argument("--least-recall", type=float, default=0.0, help="exit with status 1 where there is less")
    reporter.add_argument("--most-alarms", type=float, default=1.0, help="exit with status 1 where there are more")
    reporter.add_argument("--details", action="store_true", help="name each network that was judged wrongly")
    given = parser.parse_args(arguments)
    if given.command == "run":
        i, n = given.part.split("/")
        run(given.out, given.minutes, (int(i), int(n)), given.small)
    else:
        marks = marked(judged(given.files, given.half), Thresholds())
        report(marks, Thresholds(), given.details)
        if given.map:
            depth_map(marks, Thresholds())
        reached = summary(marks)
        if not (reached["bad called bad"] >= given.least_recall and reached["good called bad"] <= given.most_alarms):
            print(f"not reached: recall {given.least_recall}, false alarms {given.most_alarms}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
