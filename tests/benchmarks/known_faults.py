"""A second ground truth: faults that the literature and public questions describe, and healthy models of other kinds.

No limit of the package was fitted to these models, and no model is changed because of what the audit says about it.
Each fault is rebuilt from its description, with a repaired twin, and both are trained to check the label.

    python tests/benchmarks/known_faults.py train --out tests/reference/known_faults.json [--only TEXT]
    python tests/benchmarks/known_faults.py report [--labels FILE] [--fit STEPS] [--details]

`train` makes 150 updates on batches of 32 out of all the data, from three seeds. A start has come half of the way when
the mean of five losses is half between the loss of the best constant answer and the loss of the targets themselves.
A fault is `stuck` if most seeds do not come there, `late` if they need at least twice as many updates as the twin and
five more, and else it `learns`. `report` audits every start once, untrained, and prints the table; with `--fit` it
takes what `InitAudit` finds in so many steps of `fit`, for a rate is seen at work only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from known_faults_data import Fault, Healthy, Start
from known_faults_healthy import HEALTHY as HEALTHY_TABLES
from known_faults_healthy_layers import HEALTHY as HEALTHY_LAYERS
from known_faults_layers import FAULTS as LAYERS
from known_faults_models import FAULTS as MODELS
from known_faults_others import OTHERS, watch
from known_faults_tasks import FAULTS as TASKS

from keras_initaudit import InitAudit, audit
from keras_initaudit.records import Trial, verdict_of

FAULTS: list[Fault] = [*MODELS, *LAYERS, *TASKS]
HEALTHY: list[Healthy] = [*HEALTHY_LAYERS, *HEALTHY_TABLES]
LABELS = Path(__file__).parents[1] / "reference" / "known_faults.json"
STEPS, BATCH, SEEDS = 150, 32, (1, 2, 3)
WINDOW = 5
"""Losses whose mean is compared: single batches are noisy."""
THINNED = 15
"""Updates that one number of a stored curve averages."""


def starts() -> Iterator[tuple[str, Callable[[], Start], tuple[float, float] | None]]:
    """Every start: `fault/...`, `twin/...` and `healthy/...`."""
    for fault in FAULTS:
        yield f"fault/{fault.name}", fault.faulty, None
        yield f"twin/{fault.name}", fault.repaired, None
    for model in HEALTHY:
        yield f"healthy/{model.name}", model.build, model.ends


def built(build: Callable[[], Start], seed: int) -> Start:
    keras.utils.set_random_seed(seed)
    model, x, y = build()
    if not model.built:
        model(keras.tree.map_structure(lambda values: values[:2], x))
    return model, x, y


def ends(loss: Any, y: Any) -> tuple[float, float]:
    """The loss of the best constant answer, and that of the targets themselves; summed where there are several."""
    if isinstance(loss, list):
        pairs = [ends(one, part) for one, part in zip(loss, y, strict=True)]
        return sum(p[0] for p in pairs), sum(p[1] for p in pairs)
    function = keras.losses.get(loss)
    name = loss if isinstance(loss, str) else loss.name
    if "categorical" in name:
        share = np.bincount(y.ravel()) / y.size if y.dtype.kind in "iu" else y.mean(0)
        return -float(np.sum(share[share > 0] * np.log(share[share > 0]))), 0.0
    y = y.reshape(-1, y.shape[-1])
    y = y[np.isfinite(y).all(1)]

    def cost(column: Any, answer: Any) -> float:
        return float(np.mean(function(column[:, None], (0 * column + answer)[:, None].astype(column.dtype))))

    answers = [np.append(np.quantile(column, np.linspace(0, 1, 21)), column.mean()) for column in y.T]
    best = [min(cost(column, a) for a in candidates) for column, candidates in zip(y.T, answers, strict=True)]
    return float(np.mean(best)), float(np.mean([cost(column, column) for column in y.T]))


def stepper(model: Any, x: Any, y: Any) -> Callable[[Any], float]:
    """A function of sample numbers that makes one update on them; gives the loss without penalties of weights."""
    import tensorflow as tf

    x, y = keras.tree.map_structure(tf.constant, (x, y))

    @tf.function(autograph=False)
    def step(index: Any) -> Any:
        model.reset_metrics()
        penalty = sum(model.losses) if model.losses else 0.0
        return model.train_step(keras.tree.map_structure(lambda v: tf.gather(v, index), (x, y)))["loss"] - penalty

    return lambda index: float(step(tf.constant(index, "int32")))


def trained(step: Callable[[Any], float], samples: int, seed: int) -> list[float]:
    """The losses of `STEPS` updates on batches of all the data."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(samples) for _ in range(STEPS * BATCH // samples + 1)])
    return [step(order[i * BATCH : (i + 1) * BATCH]) for i in range(STEPS)]


def half_way(losses: list[float], best: float, end: float) -> int | None:
    """The update after which the mean of the last losses is half of the way down; None if it never is."""
    means = np.convolve(losses, np.ones(WINDOW) / WINDOW, "valid")
    there = np.flatnonzero(means <= (best + end) / 2)
    return int(there[0]) + WINDOW if len(there) else None


def measure(build: Callable[[], Start], given: tuple[float, float] | None) -> dict[str, Any]:
    """Trains one start from all seeds; then once more under the eyes of the other rule sets."""
    model, x, y = built(build, SEEDS[0])
    model.optimizer.build(model.trainable_variables)
    fresh = [(v, v.numpy()) for v in model.optimizer.variables]

    def restart(seed: int) -> None:
        model.set_weights(built(build, seed)[0].get_weights())
        for variable, value in fresh:
            variable.assign(value)

    best, end = given or ends(model.loss, y)
    step, samples = stepper(model, x, y), len(keras.tree.flatten(x)[0])
    curves, half = [], []
    for seed in SEEDS:
        restart(seed)
        losses = trained(step, samples, seed)
        curves.append([rounded(np.mean(losses[i : i + THINNED])) for i in range(0, STEPS, THINNED)])
        half.append(half_way(losses, best, end))
    others = watch(lambda: restart(SEEDS[0]), step, model, x, y)
    return {"ends": [rounded(best), rounded(end)], "half": half, "losses": curves, "others": others}


def rounded(value: Any) -> float | None:
    """Three digits; None where the loss is not finite."""
    return float(f"{value:.3g}") if np.isfinite(value) else None


def comes_there(half: list[int | None]) -> float | None:
    """The median of the updates that it needs, or None if most seeds do not come there."""
    found = [h for h in half if h is not None]
    return float(statistics.median(found)) if 2 * len(found) > len(half) else None


def label(faulty: list[int | None], repaired: list[int | None]) -> str:
    fault, twin = comes_there(faulty), comes_there(repaired)
    if twin is None:
        return "twin does not learn"
    if fault is None:
        return "stuck"
    return "late" if fault >= 2 * twin and fault >= twin + 5 else "learns"


def train(out: Path, only: str) -> None:
    """Writes the file after each start, so that what was trained is kept; `only` trains what holds this text again."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    wanted = [name for name, _, _ in starts()]
    known = json.loads(out.read_text())["starts"] if out.exists() else {}
    for name, build, given in starts():
        if name in known and not (only and only in name):
            continue
        if only and only not in name:
            continue
        begin = time.monotonic()
        keras.backend.clear_session()
        known[name] = measure(build, given)
        print(f"{time.monotonic() - begin:5.1f} s {name} {known[name]['half']} {known[name]['others']}", flush=True)
        write(out, {name: known[name] for name in wanted if name in known})


def write(out: Path, found: dict[str, Any]) -> None:
    names = [fault.name for fault in FAULTS if f"fault/{fault.name}" in found and f"twin/{fault.name}" in found]
    labels = {name: label(found[f"fault/{name}"]["half"], found[f"twin/{name}"]["half"]) for name in names}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(record)}" for name, record in found.items())
    about = json.dumps({"steps": STEPS, "batch": BATCH, "seeds": SEEDS, "thinned": THINNED})
    out.write_text(f'{{"about": {about},\n "labels": {json.dumps(labels, indent=2)},\n "starts": {{\n{lines}\n}}}}\n')


class Said(NamedTuple):
    """What a rule set says about a start."""

    verdict: str
    rules: frozenset[str]
    """The rules that it names, those of notes included."""
    trials: tuple[Trial, ...] = ()


def audited(build: Callable[[], Start], steps: int) -> Said:
    """What one audit of the untrained model says, or, with `steps`, all audits in so many steps of `fit`."""
    keras.backend.clear_session()
    model, x, y = built(build, SEEDS[0])
    if not steps:
        report = audit(model, x, y)
        return Said(report.verdict, frozenset(finding.rule for finding in report.findings), report.trials)
    seen = InitAudit(log_dir=False, on_finding="silent", verbose=0)
    some = keras.tree.map_structure(lambda values: values[: steps * BATCH], (x, y))
    epochs = -(-steps * BATCH // len(keras.tree.flatten(x)[0]))
    model.fit(*some, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[seen])
    rules = frozenset(finding.rule for finding in seen.findings)
    return Said(verdict_of(seen.findings), rules, seen.reports[-1].trials)


def tried(trial: Trial) -> str:
    """A trial in a few words: its outcome, and the updates that the start needs with the remedy and as it is."""
    if trial.remedied is None or trial.as_is is None:
        return f"not tried: {trial.reason}"
    needed = (f"{c.needed}" if c.needed else f">{len(c.losses)}" for c in (trial.remedied, trial.as_is))
    return f"{trial.outcome} {' / '.join(needed)}"


def report(labels: Path, steps: int, details: bool, only: str = "") -> None:
    """Audits every start and prints one line a rule set, and for our own one a family of faults."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    data = json.loads(labels.read_text())
    said: dict[str, dict[str, Said]] = defaultdict(dict)
    for name, build, _ in starts():
        if only not in name:
            continue
        said["keras_initaudit"][name] = audited(build, steps)
        for other in OTHERS:
            rules = frozenset(data["starts"][name]["others"][other])
            said[other][name] = Said("bad" if rules else "healthy", rules)
        ours = said["keras_initaudit"][name]
        if details:
            rules = ", ".join(sorted(ours.rules))
            outcomes = "; ".join(map(tried, ours.trials))
            print(f"{name:70s} {truth(data, name):8s} {ours.verdict:8s} {rules} [{outcomes}]", flush=True)
    if only:
        return
    print(f"faults: {dict(Counter(data['labels'].values()))}; healthy models: {len(HEALTHY)}")
    columns = ("found", "named", "bad of stuck", "bad of late", "named of stuck", "bad of learns")
    alarms = ("healthy: bad", "warned", "twins: bad", "warned")
    print(f"{'':18s}" + "".join(f"{c:>15s}" for c in (*columns, *alarms)))
    for rules, one in said.items():
        print(f"{rules:18s}" + "".join(f"{c:>15s}" for c in (*hits(one, data["labels"]), *false_alarms(one))))
    healthy = {name: one for name, one in said["keras_initaudit"].items() if not name.startswith("fault/")}
    print(f"tried of {len(healthy)} healthy models and twins: {sum(bool(one.trials) for one in healthy.values())}")
    for family in dict.fromkeys(fault.family for fault in FAULTS):
        cells = hits(said["keras_initaudit"], data["labels"], family)
        print(f"  {family:16s}" + "".join(f"{c:>15s}" for c in cells))


def truth(data: Any, name: str) -> str:
    kind, _, what = name.partition("/")
    return data["labels"][what] if kind == "fault" else "learns"


def hits(said: dict[str, Said], labels: dict[str, str], family: str = "") -> list[str]:
    """Faults that are found, named and called bad, in the order of the columns; of one family or of all."""

    def count(label: str, what: Callable[[Fault], bool]) -> str:
        kind = [f for f in FAULTS if label in ("", labels[f.name]) and family in ("", f.family)]
        return f"{sum(map(what, kind))} of {len(kind)}"

    def found(fault: Fault) -> bool:
        return said[f"fault/{fault.name}"].verdict != "healthy"

    def named(fault: Fault) -> bool:
        return bool(said[f"fault/{fault.name}"].rules & fault.named)

    def bad(fault: Fault) -> bool:
        return said[f"fault/{fault.name}"].verdict == "bad"

    wanted = (("", found), ("", named), ("stuck", bad), ("late", bad), ("stuck", named), ("learns", bad))
    return [count(label, what) for label, what in wanted]


def false_alarms(said: dict[str, Said]) -> list[str]:
    """What is called bad, and what gets a warning at the most, of the healthy models and of the twins."""
    cells = []
    for kind in ("healthy", "twin"):
        verdicts = [one.verdict for name, one in said.items() if name.startswith(f"{kind}/")]
        cells += [f"{verdicts.count(v)} of {len(verdicts)}" for v in ("bad", "warning")]
    return cells


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    trainer = commands.add_parser("train")
    trainer.add_argument("--out", type=Path, default=LABELS)
    trainer.add_argument("--only", default="", help="train again what holds this text, as `twin/softmax`")
    reporter = commands.add_parser("report")
    reporter.add_argument("--labels", type=Path, default=LABELS)
    reporter.add_argument("--fit", type=int, default=0, metavar="STEPS", help="audit so many steps of `fit`")
    reporter.add_argument("--details", action="store_true", help="print a line a start")
    reporter.add_argument("--only", default="", help="the lines of what holds this text, and no table")
    given = parser.parse_args(arguments)
    if given.command == "train":
        train(given.out, given.only)
    else:
        report(given.labels, given.fit, given.details or bool(given.only), given.only)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
