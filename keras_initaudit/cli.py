"""The command line: audit a saved model, judge a log again, list the schemes.

Each command imports what it needs when it runs: `report` and `--help` start without Keras. Exit status: 0 when the
command did its work, 1 when `--fail-on` asked for it and something that bad was found, 2 for a wrong call or unreadable
input.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .records import as_bad_as

if TYPE_CHECKING:
    from .diagnosis import Thresholds
    from .report import Report

OK, FOUND, USAGE = 0, 1, 2

_EPILOG = """\
exit status:
  0  the command did its work
  1  --fail-on was given, and a finding of that severity (or worse) was made
  2  the call is wrong, or a file cannot be read
"""

_SCHEMES = (
    ("relu, relu6", "HeNormal()", "N(0, 2 / fan_in)", "He et al. 2015"),
    ("tanh, sigmoid, softmax, linear", "GlorotNormal()", "N(0, 2 / (fan_in + fan_out))", "Glorot & Bengio 2010"),
    ("selu", "LeCunNormal()", "N(0, 1 / fan_in)", "Klambauer et al. 2017"),
    ("gelu, silu, elu, mish, ...", 'HeNormal(gain="gelu")', "N(0, gain^2 / fan_in)", "He et al. 2015, eq. 7"),
    ("recurrent kernels", "Orthogonal(blocks=4)", "orthogonal, one block a gate", "Saxe et al. 2014"),
    ("biases", "Zeros()", "0", ""),
)


class _CommandError(Exception):
    """Ends a command with status 2: its text says what was wrong and how to correct it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        if given.command == "schemes":
            return _schemes(given.json) if given.activation is None else _activation(given.activation, given.json)
        reports = _audited(given) if given.command == "audit" else _logged(given)
        return _print_reports(reports, given)
    except _CommandError as error:
        print(f"keras-initaudit: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # `... | head` has seen enough
        sys.stderr.close()
        return OK


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="keras-initaudit",
        description="Says whether a Keras model is badly initialized: which layer, by how much, and the remedy.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    audit = commands.add_parser(
        "audit",
        help="audit a saved model on a batch of data",
        description="Audits a model, saved with its optimizer and loss, on a batch: the arrays x and y (and\n"
        "sample_weight) of an .npz file; the arrays x_NAME and y_NAME where it has several inputs or outputs.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    audit.add_argument("model", type=Path, metavar="MODEL.keras")
    audit.add_argument("--data", type=Path, required=True, metavar="BATCH.npz", help="the batch; numpy.savez writes it")
    audit.add_argument("--probe-size", type=_positive, default=32, metavar="N", help="samples to use (default 32)")
    audit.add_argument("--loss", help="compile the model with this loss, as 'mse', where it was saved without one")

    audit.add_argument(
        "--trial",
        type=_not_negative,
        metavar="N",
        help="the most updates that one run of a trial may make, 0 for no trial (default: what fits into 30 seconds)",
    )

    report = commands.add_parser(
        "report",
        help="judge the log of a training again",
        description="Reads what InitAudit logged and judges it again, without Keras, with other thresholds if wanted.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    report.add_argument("log_dir", type=Path, metavar="LOGDIR", help="the folder of one run, or one above many")

    schemes = commands.add_parser(
        "schemes",
        help="list the initializers that are recommended, by activation",
        description="Lists the initializers that are recommended. For one activation: its exact gains, its edge of\n"
        "chaos, and how many layers a signal survives from each start.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    schemes.add_argument("--json", action="store_true", help="print JSON")
    schemes.add_argument("--activation", metavar="NAME", help="one activation, as tanh or 'leaky_relu(0.1)'")

    for command in (audit, report):
        command.add_argument("--json", action="store_true", help="print JSON, as Report.to_json writes it")
        command.add_argument("--markdown", action="store_true", help="print markdown")
        command.add_argument(
            "--fail-on", choices=("bad", "warning"), help="exit with status 1 when something that bad is found"
        )
        command.add_argument(
            "--threshold",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="another limit for a rule, as dead_bad=0.8; may be repeated",
        )
        command.add_argument(
            "--ignore",
            action="append",
            default=[],
            metavar="RULE[:LAYER]",
            help="a finding that is meant, as duplicate-kernels or 'no-gradient:ema/*'; may be repeated",
        )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def _thresholds(pairs: Sequence[str]) -> Thresholds:
    from .diagnosis import Thresholds

    known = {field.name for field in dataclasses.fields(Thresholds)}
    changes: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in known:
            raise _CommandError(f"--threshold: no limit is named {name!r}; there are {', '.join(sorted(known))}")
        try:
            changes[name] = float(value)
        except ValueError:
            raise _CommandError(f"--threshold: {name} needs a number, as {name}=0.5, got {value!r}") from None
    try:
        return Thresholds(**changes)
    except ValueError as error:
        raise _CommandError(f"--threshold: {error}") from error


def _ignore(entries: Sequence[str]) -> tuple[str, ...]:
    from .diagnosis.ignoring import checked_ignore

    try:
        return checked_ignore(entries)
    except ValueError as error:
        raise _CommandError(f"--{error}") from error


def _audited(given: argparse.Namespace) -> list[tuple[str, Report]]:
    thresholds, ignore = _thresholds(given.threshold), _ignore(given.ignore)
    if not given.model.exists():
        raise _CommandError(f"no model at {str(given.model)!r}; model.save({str(given.model)!r}) writes one")
    x, y, weights = _batch(given.data)

    import keras

    from .auditing import audit

    try:
        with warnings.catch_warnings():
            # A model that was never fitted has no optimizer variables to load: an audit is made for those.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            model = keras.saving.load_model(given.model)
    except Exception as error:  # Keras raises whatever the file or a layer of it raises
        raise _CommandError(f"cannot load {str(given.model)!r}: {type(error).__name__}: {error}") from error
    if given.loss:
        model.compile(optimizer=getattr(model, "optimizer", None) or "adam", loss=given.loss)
    if not getattr(model, "compiled", False):
        raise _CommandError(f"{str(given.model)!r} was saved without a loss; name one with --loss")
    try:
        found = audit(
            model,
            x,
            y,
            weights,
            probe_size=given.probe_size,
            thresholds=thresholds,
            ignore=ignore,
            trial=given.trial,
        )
    except Exception as error:  # the model's own layers and losses run here
        raise _CommandError(
            f"cannot audit {str(given.model)!r} on {str(given.data)!r}: {type(error).__name__}: {error}"
        ) from error
    return [(str(given.model), found)]


def _batch(path: Path) -> tuple[Any, Any, Any]:
    """x, y and sample weights of an .npz file: arrays, or dicts of them where their names go on behind `x_`, `y_`."""
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise _CommandError(
            f"no data at {str(path)!r}; numpy.savez({str(path)!r}, x=x[:32], y=y[:32]) writes it"
        ) from None
    except (OSError, ValueError) as error:
        raise _CommandError(f"{str(path)!r} is no .npz file of plain arrays: {error}") from error
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise _CommandError(
            f"{str(path)!r} holds one array; numpy.savez(path, x=..., y=...) writes several under names"
        )
    with loaded:
        try:
            arrays = {name: loaded[name] for name in loaded.files}
        except ValueError as error:
            raise _CommandError(f"{str(path)!r} holds an array that is not plain numbers: {error}") from error
    strange = [n for n in arrays if n not in ("x", "y", "sample_weight") and not n.startswith(("x_", "y_"))]
    if strange:
        raise _CommandError(
            f"{str(path)!r}: unknown array {strange[0]!r}; it may hold x, y, sample_weight, x_NAME and y_NAME"
        )

    def part(letter: str) -> Any:
        named = {name[2:]: array for name, array in arrays.items() if name.startswith(f"{letter}_")}
        if named and letter in arrays:
            raise _CommandError(
                f"{str(path)!r} holds both {letter} and {letter}_{next(iter(named))}; only one form can be"
            )
        return named or arrays.get(letter)

    x = part("x")
    if x is None:
        raise _CommandError(f"{str(path)!r} holds no array x; it holds {', '.join(arrays) or 'nothing'}")
    return x, part("y"), arrays.get("sample_weight")


def _logged(given: argparse.Namespace) -> list[tuple[str, Report]]:
    from .diagnosis import diagnose
    from .diagnosis.ignoring import split
    from .report import Report
    from .tensorboard.summary import read_runs

    thresholds, ignore = _thresholds(given.threshold), _ignore(given.ignore)
    try:
        runs = read_runs(given.log_dir)
    except OSError as error:
        raise _CommandError(str(error)) from error
    for run in runs:
        for problem in run.problems:
            print(f"keras-initaudit: {run.name}: {problem}", file=sys.stderr)
    runs = [run for run in runs if run.snapshots]
    if not runs:
        raise _CommandError(
            f"no log of an audit in or below {str(given.log_dir)!r}; "
            "model.fit(..., callbacks=[InitAudit(log_dir=...)]) writes one"
        )
    reports = []
    for run in runs:
        # What was tried while the model was there stays so: how bad it is, a remedy that helped, one that did not.
        tried = {(f.rule, f.layer): f for found in run.findings for f in found}
        findings = tuple(
            f
            if logged is None
            else dataclasses.replace(f, remedy=logged.remedy, action=logged.action, proof=logged.proof)
            for f in diagnose(run.snapshots, thresholds, run.trials)
            for logged in [tried.get((f.rule, f.layer))]
        )
        reports.append(
            (run.name, Report(run.snapshots[-1], *split(findings, ignore), run.trials, run.snapshots[0].step))
        )
    return reports


def _print_reports(reports: list[tuple[str, Report]], given: argparse.Namespace) -> int:
    many = len(reports) > 1
    if given.json:
        written = [{"run": name, **json.loads(report.to_json())} for name, report in reports]
        print(json.dumps(written if many else written[0], allow_nan=False))
    else:
        for i, (name, report) in enumerate(reports):
            if many:
                print(f"{'' if i == 0 else chr(10)}{'# ' if given.markdown else ''}{name}\n")
            print(report.to_markdown() if given.markdown else report.text())
    failed = given.fail_on and any(as_bad_as(report.verdict, given.fail_on) for _, report in reports)
    return FOUND if failed else OK


def _schemes(as_json: bool) -> int:
    names = ("activation", "initializer", "law", "reference")
    if as_json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in _SCHEMES]))
        return OK
    widths = [max(len(row[i]) for row in (names, *_SCHEMES)) for i in range(3)]
    for row in (names, *_SCHEMES):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)).rstrip())
    print("\nOne layer at a time. A deep chain without normalisation, of sigmoids above all: initialize(model).")
    return OK


def _activation(text: str, as_json: bool) -> int:
    """Gains, critical point and depth scales of one activation."""
    from .records import to_jsonable
    from .remedies.initialization import recommend
    from .theory.chaos import critical_point, depth_scale
    from .theory.gains import activation_name, gain

    def or_none(compute: Any, *arguments: Any) -> Any:
        try:
            return compute(*arguments)
        except ValueError:
            return None

    try:
        name = activation_name(text) or "linear"
        forward = gain(name)
    except ValueError as error:
        raise _CommandError(f"--activation: {error}") from error
    scheme = recommend(name)
    exact = f'HeNormal(gain="{name}")'
    recommended = exact if scheme.gain == name != "relu" else f"{type(scheme).__name__}()"
    point = or_none(critical_point, name)
    # Of layers as wide as what comes in, which makes Glorot's variance that of LeCun.
    starts = {"GlorotNormal(), LeCunNormal()": 1.0, "HeNormal()": 2.0**0.5}
    if name != "relu":
        starts[exact] = forward
    found: dict[str, Any] = {
        "activation": name,
        "recommended": recommended,
        "gain": {"forward": forward, "backward": or_none(gain, name, "backward")},
        "critical_point": None if point is None else dataclasses.asdict(point),
        "starts": [
            {"initializer": start, "sigma_w": sigma, "depth_scale": or_none(depth_scale, name, sigma)}
            for start, sigma in starts.items()
        ],
    }
    if as_json:
        print(json.dumps(to_jsonable(found), allow_nan=False))
        return OK
    backward = found["gain"]["backward"]
    print(f"activation      {name}")
    print(f"recommended     {recommended}")
    print(f"gain            {forward:.4f} forward, {'none' if backward is None else f'{backward:.4f}'} backward")
    print(f"critical point  {'none' if point is None else f'weights of variance {point.sigma_w**2:.4g} / fan_in'}")
    width = max(map(len, starts))
    print(f"\n{'start'.ljust(width)}  variance of the weights  layers that a signal survives")
    for start in found["starts"]:
        variance = f"{start['sigma_w'] ** 2:.4g} / fan_in"
        print(f"{start['initializer'].ljust(width)}  {variance.ljust(23)}  {_depth(start['depth_scale'])}")
    print(
        "\nIn a plain chain of equally wide layers without biases: in so many layers, the difference of two inputs,\n"
        "or what they have in common, falls to 1 / e. Such a chain trains up to a few times that depth."
    )
    return OK


def _depth(layers: float | None) -> str:
    # The fixed point is known to some nine digits: beyond 1e6 layers it cannot be distinguished from the edge of chaos.
    return "none: it grows without bound" if layers is None else "any number" if layers > 1e6 else f"{layers:.1f}"
