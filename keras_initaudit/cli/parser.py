"""The arguments of the command line, and its help: each command on one screen, with an example."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from .writing import FORMATS

_EPILOG = """\
exit status:
  0  the command did its work
  1  --fail-on was given, and a finding of that severity (or worse) was made
  2  the call is wrong, or a file cannot be read or written
"""
_FORMATTER = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=26, width=80)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from .. import __version__

    made = argparse.ArgumentParser(
        prog="keras-initaudit",
        description="Says whether a Keras model is badly initialized: which layer, by how much, and\nthe remedy.",
        epilog=_example("audit model.keras --data batch.npz --fail-on bad"),
        formatter_class=_FORMATTER,
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    audit = commands.add_parser(
        "audit",
        help="audit a saved model on a batch of data",
        description="Audits a model, saved with its optimizer and loss, on a batch: the arrays x, y (and\n"
        "sample_weight) of an .npz file; x_NAME, y_NAME for several inputs or outputs.",
        epilog=_example("audit model.keras --data batch.npz --fail-on bad --format github"),
        formatter_class=_FORMATTER,
    )
    audit.add_argument("model", type=Path, metavar="MODEL.keras")
    audit.add_argument("--data", type=Path, required=True, metavar="BATCH.npz", help="the batch; numpy.savez writes it")
    audit.add_argument("--loss", help="compile with this loss, as mse, a model that was saved without")
    audit.add_argument("--probe-size", type=_positive, default=32, metavar="N", help="samples to use (default 32)")
    trial = "most updates of one run of a trial, 0 for no trial (default: half a minute)"
    audit.add_argument("--trial", type=_not_negative, metavar="N", help=trial)

    report = commands.add_parser(
        "report",
        help="judge the log of a training again",
        description="Reads what InitAudit logged and judges it again, without Keras. Several runs are\n"
        "listed, one a line; the folder of one of them gives its report.",
        epilog=_example("report logs --threshold dead_bad=0.8 --output report.html"),
        formatter_class=_FORMATTER,
    )
    report.add_argument("log_dir", type=Path, metavar="LOGDIR", help="the folder of one run, or one above many")

    schemes = commands.add_parser(
        "schemes",
        help="list the initializers that are recommended, by activation",
        description="Lists the initializers that are recommended. For one activation: its exact gains,\n"
        "its edge of chaos, and how many layers a signal survives from each start.",
        epilog=_example("schemes --activation tanh"),
        formatter_class=_FORMATTER,
    )
    schemes.add_argument("--activation", metavar="NAME", help="one activation, as tanh or 'leaky_relu(0.1)'")
    schemes.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")

    for command in (audit, report):
        forms = "text (default), markdown, html, json, or github: annotations of a pull request"
        command.add_argument("--format", choices=tuple(FORMATS), help=forms, metavar="FORM")
        output = "write there; its ending chooses the form where --format does not"
        command.add_argument("--output", type=Path, metavar="FILE", help=output)
        source = "the file that builds the model: where github shows the annotations"
        command.add_argument("--source", metavar="FILE", help=source)
        command.add_argument("--fail-on", choices=("bad", "warning"), help="exit with status 1 where it is that bad")
        limit = "another limit of a rule, as dead_bad=0.8; may be repeated"
        command.add_argument("--threshold", action="append", default=[], metavar="NAME=VALUE", help=limit)
        meant = "a finding that is meant, as 'no-gradient:ema/*'; may be repeated"
        command.add_argument("--ignore", action="append", default=[], metavar="RULE[:LAYER]", help=meant)
    return made


def _example(call: str) -> str:
    return f"example:\n  keras-initaudit {call}\n\n{_EPILOG}"


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
