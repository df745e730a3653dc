"""What watching costs: the audit beside `keras.callbacks.TensorBoard` and the recipe that people write by hand.

    python tests/benchmarks/overhead.py            # all models, some ten minutes
    python tests/benchmarks/overhead.py --quick    # small models, about two minutes
    python tests/benchmarks/overhead.py --profile  # where the time of the audits goes
    python tests/benchmarks/overhead.py --trial    # a trial beside as many plain steps as it makes updates

Each row is a process of its own, so that its peak memory is its own. Within a row, a plain training step and a snapshot
are timed in turns and their medians compared, so that what else the machine does falls on both. A snapshot is all
layers: weights, activations, both gradients and histograms, computed and written. Keras's callback writes the weights
alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

PAIRS = 9
METHODS = ("plain", "InitAudit()", "TensorBoard", "recipe")


# --- models: each returns a compiled model, a batch, and the number of steps of its whole fit


def mlp(width=512, depth=8):
    model = keras.Sequential([keras.Input((width,)), *[layers.Dense(width, "relu") for _ in range(depth)]])
    model.add(layers.Dense(10, "softmax"))
    return model, RNG.normal(size=(128, width)), RNG.integers(0, 10, 128), 1000


def resnet():
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
    return model, RNG.normal(size=(32, 64, 64, 3)), RNG.integers(0, 10, 32), 20


def transformer(blocks=4, width=128, length=64):
    tokens = keras.Input((length,), dtype="int32")
    h = layers.Embedding(1000, width)(tokens)
    for _ in range(blocks):
        n = layers.LayerNormalization()(h)
        h = layers.Add()([h, layers.MultiHeadAttention(4, width // 4)(n, n)])
        n = layers.Dense(4 * width, "gelu")(layers.LayerNormalization()(h))
        h = layers.Add()([h, layers.Dense(width)(n)])
    out = layers.Dense(10, "softmax")(layers.GlobalAveragePooling1D()(h))
    return keras.Model(tokens, out), RNG.integers(0, 1000, (32, length)), RNG.integers(0, 10, 32), 300


def lstm(units=128, length=50):
    sequence = keras.Input((length, 32))
    h = layers.LSTM(units)(layers.LSTM(units, return_sequences=True)(sequence))
    model = keras.Model(sequence, layers.Dense(10, "softmax")(h))
    return model, RNG.normal(size=(64, length, 32)), RNG.integers(0, 10, 64), 300


MODELS = {"MLP 8x512": mlp, "ResNet50": resnet, "transformer": transformer, "LSTM": lstm}
QUICK = {
    "MLP 4x256": lambda: (*mlp(256, 4)[:3], 200),
    "transformer": lambda: (*transformer(1, 32, 16)[:3], 100),
    "LSTM": lambda: (*lstm(16, 10)[:3], 100),
}


def deep(depth):
    return lambda: (*mlp(32, depth)[:3], 0)


def wide(width):
    return lambda: (*mlp(width, 4)[:3], 0)


# --- one row, in a process of its own


def recipe(model, x, y, writer):
    """Activations, weights and gradients of all layers, as in the answers that people copy."""
    several = keras.Model(model.inputs, [layer.output for layer in model.layers])

    def snapshot(step):
        with tf.GradientTape(persistent=True) as tape:
            outputs = several(x, training=True)
            loss = model.compute_loss(x, y, outputs[-1])
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        backward = tape.gradient(loss, outputs)
        with writer.as_default(step):
            for kind, names, values in (
                ("activations", [layer.name for layer in model.layers], outputs),
                ("backward", [layer.name for layer in model.layers], backward),
                ("weights", [v.path for v in variables], [v.value for v in variables]),
                ("gradients", [v.path for v in variables], gradients),
            ):
                for name, value in zip(names, values, strict=True):
                    if value is None or not tf.convert_to_tensor(value).dtype.is_floating:
                        continue
                    value = tf.convert_to_tensor(value)
                    tf.summary.histogram(f"{kind}/{name}", value)
                    tf.summary.scalar(f"{kind}/{name}/rms", tf.sqrt(tf.reduce_mean(value**2)))
                    tf.summary.scalar(f"{kind}/{name}/max", tf.reduce_max(tf.abs(value)))
        writer.flush()

    return snapshot


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def row(build, method, jit, pairs):
    """The figures of one model under one method."""
    keras.utils.set_random_seed(0)
    model, x, y, steps = build()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit)
    x, y = x.astype("int32" if x.dtype.kind == "i" else "float32"), y.astype("int32")
    folder = tempfile.mkdtemp()
    data = tf.data.Dataset.from_tensors((tf.constant(x), tf.constant(y))).repeat()
    found = {"rows": len(model.layers)}

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                found["first"] = time.perf_counter() - self.start

    callbacks = [Clock()]
    audit = board = None
    if method == "InitAudit()":
        audit = InitAudit(folder, on_finding="silent")
        look = audit._look

        def first_verdict(*first):
            audit._look = look
            found["verdict"] = timed(look, *first)

        audit._look = first_verdict
        callbacks.append(audit)
    elif method == "TensorBoard":
        board = keras.callbacks.TensorBoard(folder, histogram_freq=1)
        callbacks.append(board)

    # The whole fit, of a new process and a new model, as a person waits for it.
    hand = (
        recipe(model, tf.constant(x[:32]), tf.constant(y[:32]), tf.summary.create_file_writer(folder))
        if (method == "recipe")
        else None
    )
    start, processor = time.perf_counter(), time.process_time()
    model.fit(data, steps_per_epoch=max(1, steps), epochs=1, verbose=0, callbacks=callbacks)
    if hand is not None:
        found["verdict"] = timed(hand, 0)
    found["fit"], found["fit_cpu"] = time.perf_counter() - start, time.process_time() - processor
    found["first"] -= found.get("verdict", 0.0) if audit is not None else 0.0
    found["bytes"] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())

    iterator = iter(data)
    if board is not None:
        board._writers.clear()  # closed at the end of the fit

    def step():
        for value in model.train_function(iterator).values():
            float(value)

    def snapshot():
        if audit is not None:
            audit._probe.mark()
            audit._step += 1
            audit._look(audit._measured)
        elif board is not None:
            board._log_weights(1)
            board._writers["train"].flush()
        elif hand is not None:
            hand(1)

    step()
    times = [(timed(step), timed(snapshot)) for _ in range(pairs)]
    found["step"] = statistics.median(a for a, _ in times)
    found["snapshot"] = statistics.median(b for _, b in times)
    found["ratio"] = statistics.median(b / a for a, b in times)
    found["quartiles"] = statistics.quantiles([b / a for a, b in times], n=4)
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


PARTS = (
    ("train_step is traced", "observe.probe.Probe", "_step"),
    ("shadow step runs", "observe.probe.Probe", "_run"),
    ("weights of the step before", "observe.probe.Probe", "_kernel_samples"),
    ("layers are described", "observe.probe.Probe", "_describe"),
    ("numbers of the tensors", "observe.probe", "statistics_of"),
    ("histograms", "observe.measures", "histogram"),
    ("diagnosis", "auditing", "diagnose"),
    ("remedies are proven", "remedies.applying", "prove"),
    ("report and log", "callback.InitAudit", "_write"),
    ("all of an audit", "callback.InitAudit", "_look"),
)
"""What an audit is made of, and the function that does it; one that runs within another is taken off it."""


def resident():
    """Megabytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def profile(build, jit, audits):
    """Milliseconds that each part takes at the first audit and the median of the later ones; megabytes it adds."""
    spent = [dict.fromkeys([part for part, *_ in PARTS], 0.0)]
    running, memory = [], {}

    def timing(part, function):
        def timed_function(*args, **kwargs):
            running.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.perf_counter() - start
                memory.setdefault(part, resident())
                spent[-1][part] += whole - running.pop()
                if running:
                    running[-1] += whole

        return timed_function

    for part, place, name in PARTS:
        module, _, kind = place.partition(".")
        owner = importlib.import_module(f"keras_initaudit.{module}")
        owner = getattr(owner, kind) if kind else owner
        setattr(owner, name, timing(part, getattr(owner, name)))
    keras.utils.set_random_seed(0)
    model, x, y, _ = build()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit)
    audit = InitAudit(tempfile.mkdtemp(), schedule=lambda step: True, on_finding="silent")

    class Next(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            spent.append(dict.fromkeys(spent[0], 0.0))

    data = tf.data.Dataset.from_tensors((x.astype("int32" if x.dtype.kind == "i" else "float32"), y)).repeat()
    before = resident()
    # `Next` stands first: what is timed after it belongs to the audit behind the step.
    model.fit(data, steps_per_epoch=audits, verbose=0, callbacks=[Next(), audit])
    later = spent[2:]
    return {
        "parts": {part: [spent[0][part] * 1e3, statistics.median(s[part] for s in later) * 1e3] for part in spent[0]},
        "memory": [before, memory["train_step is traced"], memory["shadow step runs"]],
    }


def tried(build, jit, repeats):
    """A trial in a `fit`, at its first batch, beside as many plain steps; medians of turns.

    The function of `fit` is traced and compiled before: `fit` pays for that without a trial as well.
    """
    found, traced = {}, [0, 0]

    def compiled(kind):
        keras.utils.set_random_seed(0)
        model, x, y, _ = build()
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit)
        layer = model.layers[-1]
        call = layer.call

        def counted(*args, **kwargs):
            traced[kind] += not tf.executing_eagerly()
            return call(*args, **kwargs)

        layer.call = counted
        x = x.astype("int32" if x.dtype.kind == "i" else "float32")
        return model, tf.data.Dataset.from_tensors((x, y.astype("int32"))).repeat()

    def begin(batch, runs_python):
        train, iterator = model.train_function, iter(data)
        probe = Probe(model, batch, size=32, data_runs_python=runs_python)
        probe.measure(0)
        traced[1] = 0
        updates = probe.updates(batch, train, iterator)
        prepared = SimpleNamespace(updates=lambda *_: updates)

        def remedied():
            for variable in model.trainable_variables:
                if variable.name == "kernel":
                    variable.assign(0.99 * variable)

        def step():
            for value in train(iterator).values():
                float(value)

        turns = []
        for _ in range(repeats + 1):
            with updates.kept():
                steps = [timed(step) for _ in range(6)][1:]
            with updates.start() as (_, update):
                single = [timed(update) for _ in range(6)][1:]
            start = time.perf_counter()
            probe.updates(batch, train, iterator)
            trial = trials.run(prepared, batch, remedied, most=40)
            spent = time.perf_counter() - start
            made = len(trial.as_is.losses) + len(trial.remedied.losses)
            turns.append((statistics.median(steps), statistics.median(single), spent, made))
        del turns[0]  # compiles
        plain, single, spent, made = (statistics.median(values) for values in zip(*turns, strict=True))
        found.update(step=plain, update=single, trial=spent, updates=made)
        found["ratio"] = statistics.median(spent / made / plain for plain, _, spent, made in turns)
        found["fixed"] = statistics.median(spent - made * single for _, single, spent, made in turns)
        found["fixed_steps"] = statistics.median((spent - made * one) / plain for plain, one, spent, made in turns)

    model, data = compiled(0)
    model.fit(data, steps_per_epoch=2, verbose=0)
    model, data = compiled(1)
    hook = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: engine().stand_in(model, begin))
    model.fit(data, steps_per_epoch=2, verbose=0, callbacks=[hook])
    found["traces"] = traced
    return found


def spawn(name, method, options):
    """`row` in a process of its own."""
    command = [sys.executable, __file__, "--row", name, method, "--jit", options.jit, "--pairs", str(options.pairs)]
    command += ["--quick"] if options.quick else []
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def table(head, rows):
    widths = [max(len(str(line[i])) for line in [head, *rows]) for i in range(len(head))]
    for line in [head, *rows]:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)), flush=True)
    print(flush=True)


AUDITS = 10
"""Audits of a fit of 1000 steps, by the default schedule, that follow the one at initialization."""


def thousand(found, plain):
    """A fit of 1000 steps with the audit over one without, from the medians: a difference that one fit cannot show."""
    return f"{1 + (found['verdict'] + AUDITS * found['snapshot']) / (1000 * plain['step']):.3f}"


def main():
    options = parsed()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jit_compile={options.jit}\n", flush=True)
    models = options.models or list(QUICK if options.quick else MODELS)
    if options.profile:
        for name in models:
            found = spawn(name, "profile", options)
            parts = found["parts"]
            lines = [(part, f"{a:.1f} ms", f"{b:.1f} ms") for part, (a, b) in parts.items()]
            lines[-1] = ("the rest", *lines[-1][1:])
            sums = [sum(times[i] for times in parts.values()) for i in (0, 1)]
            print(name)
            table(("", "first audit", "a later one"), [*lines, ("together", *(f"{s:.1f} ms" for s in sums))])
            held, traced, run = found["memory"]
            print(f"Memory: the trace takes {traced - held:.0f} MB, its first run {run - traced:.0f} MB more\n")
        return
    if options.trial:
        lines = []
        for name in models:
            f = spawn(name, "trial", options)
            lines.append(
                (
                    name,
                    f"{f['step'] * 1e3:.1f} ms",
                    f"{f['updates']:.0f}",
                    f"{f['trial'] * 1e3:.0f} ms",
                    f"{f['ratio']:.2f}",
                    f"{f['update'] / f['step']:.2f}",
                    f"{f['fixed'] * 1e3:.0f} ms = {f['fixed_steps']:.1f} steps",
                    " and ".join(map(str, f["traces"])),
                )
            )
        head = ("", "plain step", "updates", "trial", "x as many steps", "an update, x", "the rest")
        table((*head, "traces of a fit without and with"), lines)
        return
    for name in models:
        found = {}
        for method in options.methods:
            runs = [spawn(name, method, options) for _ in range(options.runs)]
            found[method] = {
                key: statistics.median(run[key] for run in runs)
                if isinstance(runs[0][key], float | int)
                else runs[0][key]
                for key in runs[0]
            }
        plain = found["plain"]
        lines = []
        for method, f in found.items():
            watches = method != "plain"
            low, _, high = f["quartiles"]
            lines.append(
                (
                    method,
                    f"{f['step'] * 1e3:.1f} ms",
                    f"{f['snapshot'] * 1e3:.1f} ms" if watches else "-",
                    f"{f['ratio']:.2f} ({low:.2f}-{high:.2f})" if watches else "-",
                    f"{f['first']:.2f} s",
                    f"{f['verdict']:.2f} s = {f['verdict'] / f['first']:.2f}" if "verdict" in f else "-",
                    f"{f['fit']:.1f} s",
                    f"{f['fit'] / plain['fit']:.3f}" if watches else "-",
                    f"{f['fit_cpu'] / plain['fit_cpu']:.3f}" if watches else "-",
                    thousand(f, plain) if "verdict" in f and method == "InitAudit()" else "-",
                    f"{f['memory']:.0f} MB",
                    f"{f['memory'] / plain['memory']:.2f}" if watches else "-",
                    f"{f['bytes'] / 1e3:.0f} kB" if watches else "-",
                )
            )
        print(name)
        table(
            (
                "",
                "step",
                "snapshot",
                "of a step (quartiles)",
                "first step",
                "first verdict, of that",
                "whole fit",
                "x",
                "x CPU",
                "1000 steps, x",
                "peak",
                "x",
                "written",
            ),
            lines,
        )
    if options.models:
        return
    print("Growth with the number of layers and with their width (InitAudit() on an MLP, batch 128)")
    names = [f"{n} layers" for n in ((10, 50) if options.quick else (10, 100, 1000))]
    names += [f"width {n}" for n in ((64, 512) if options.quick else (64, 512, 2048))]
    lines = []
    for name in names:
        f = spawn(name, "InitAudit()", options)
        lines.append(
            (
                name,
                f"{f['snapshot'] * 1e3:.1f} ms",
                f"{f['snapshot'] / f['rows'] * 1e3:.2f} ms",
                f"{f['step'] * 1e3:.1f} ms",
                f"{f['verdict']:.2f} s",
                f"{f['bytes'] / 1e3:.0f} kB",
            )
        )
    table(("", "snapshot", "a layer", "step", "first verdict", "written"), lines)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small models, few repeats")
    parser.add_argument("--jit", choices=("auto", "off"), default="auto", help="jit_compile; auto is Keras's default")
    parser.add_argument("--pairs", type=int, default=0, help="timed pairs of step and snapshot in a row")
    parser.add_argument("--runs", type=int, default=1, help="processes a row, of which the median is shown")
    parser.add_argument("--trial", action="store_true", help="what a trial costs")
    parser.add_argument("--profile", action="store_true", help="where the time of the audits goes")
    parser.add_argument("--models", nargs="*", help="only these, without the table of growth")
    parser.add_argument("--methods", nargs="*", default=METHODS, help="only these; `plain` must be one")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.pairs = options.pairs or (3 if options.quick else PAIRS)
    return options


def built(name, *, quick):
    kind, _, size = name.rpartition(" ")
    if size == "layers":
        return deep(int(kind))
    return wide(int(size)) if kind == "width" else (QUICK if quick else MODELS)[name]


if __name__ == "__main__":
    if "--row" not in sys.argv:
        main()
        sys.exit()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(20_000)  # Keras walks a model of a thousand layers recursively
    import keras
    import numpy as np
    import tensorflow as tf
    from keras import layers

    from keras_initaudit import InitAudit
    from keras_initaudit.observe.engines import engine
    from keras_initaudit.observe.probe import Probe
    from keras_initaudit.remedies import trial as trials

    RNG = np.random.default_rng(0)
    chosen = parsed()
    chosen_model, jit = built(chosen.row[0], quick=chosen.quick), "auto" if chosen.jit == "auto" else False
    if chosen.row[1] == "trial":
        figures = tried(chosen_model, jit, chosen.pairs)
    elif chosen.row[1] == "profile":
        figures = profile(chosen_model, jit, 12)
    else:
        figures = row(chosen_model, chosen.row[1], jit, chosen.pairs)
    print(json.dumps(figures))
