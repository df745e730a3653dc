"""The command line: audit a saved model, judge a log again, list the schemes.

Each command imports what it needs when it runs: `report` and `--help` start without Keras. Exit status: 0 when the
command did its work, 1 when `--fail-on` asked for it and something that bad was found, 2 for a wrong call or a file
that cannot be read or written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..records import as_bad_as
from .errors import CommandError
from .parser import parser
from .reading import audited, logged
from .schemes import activation, schemes
from .writing import written

OK, FOUND, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    given = parser().parse_args(arguments)
    try:
        if given.command == "schemes":
            as_json = given.format == "json"
            schemes(as_json) if given.activation is None else activation(given.activation, as_json)
            return OK
        reports = audited(given) if given.command == "audit" else logged(given)
        written(reports, given.format, given.output, given.source)
    except CommandError as error:
        print(f"keras-initaudit: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # `... | head` has seen enough
        sys.stderr.close()
        return OK
    failed = given.fail_on and any(as_bad_as(report.verdict, given.fail_on) for _, report in reports)
    return FOUND if failed else OK


__all__ = ["FOUND", "OK", "USAGE", "main"]
