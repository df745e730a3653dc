"""The routes of the tab "Init Audit": the page, and the data that it draws. Nothing is judged here.

Five routes, each a GET; a bad parameter is answered by 400 and the reason:

    runs                               the cards: every run with its verdict
    run?run=                           one run: its rows, its audits, its findings
    columns?run=&columns=&steps=&rows= chosen statistics as numbers (see `_columns`)
    histograms?run=&row=&kind=         one row's histograms over the audits
    coordinates?run=                   the coordinate check of a run that holds one and no audit

and the files of the page, which are read when the tab is made: no path of a request reaches the file system. One more
file, `constants.js`, is made here: what the page shares with the rules and the report, so that it is defined once.
"""

from __future__ import annotations

import functools
import gzip
import importlib.resources
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import werkzeug
from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from ..names import shortened
from ..records import HISTOGRAM_KINDS, VERDICTS, to_jsonable
from ..report import BAND
from ..report.quantities import OF_THE_SIGNAL, QUANTITIES
from . import metadata
from .answers import COLUMNS_ON_CARD, card_data, check_card, check_data, label, line_data, run_data
from .store import Source, Store, known_columns, select

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_LONGEST_LIST = 200
"""Names in one comma-separated parameter; the page asks for a handful."""

Answer = Callable[[wrappers.Request, Source], werkzeug.Response]


class BadRequestError(ValueError):
    """A parameter that cannot be answered; the message is the answer."""


class InitAuditTab(base_plugin.TBPlugin):
    """Serves the page and the numbers that it draws."""

    plugin_name = metadata.PLUGIN_NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._data = context.data_provider
        self._store = Store()
        self._static = _static_files()

    def get_plugin_apps(self) -> dict[str, Any]:
        """Route -> WSGI application."""
        apps: dict[str, Any] = {
            f"/static/{name}": functools.partial(_serve_file, *file) for name, file in self._static.items()
        }
        for name in ("runs", "run", "columns", "histograms", "coordinates"):
            apps[f"/{name}"] = functools.partial(self._serve, getattr(self, f"_{name}"))
        return apps

    def is_active(self) -> bool:
        """False: TensorBoard itself sees from the data whether the tab has any."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The tab's name and its first module."""
        return base_plugin.FrontendMetadata(es_module_path="/static/index.js", tab_name="Init Audit")

    def data_plugin_names(self) -> tuple[str, ...]:
        """The tab reads its own tensors and its runs' histograms."""
        return (metadata.PLUGIN_NAME, "histograms")

    def _serve(self, answer: Answer, environ: dict[str, Any], start_response: Any) -> Any:
        request = wrappers.Request(environ)
        if request.method not in ("GET", "HEAD"):
            response = _json(request, {"error": f"method {request.method} is not allowed here: use GET"}, 405)
        else:
            try:
                source = Source(self._data, plugin_util.context(environ), plugin_util.experiment_id(environ))
                response = answer(request, source)
            except BadRequestError as error:
                response = _json(request, {"error": str(error)}, 400)
            except errors.NotFoundError as error:
                response = _json(request, {"error": str(error)}, 404)
        return response(environ, start_response)

    def _runs(self, request: wrappers.Request, source: Source) -> werkzeug.Response:
        def of_audits(run: str, stamp: tuple[int, float]) -> dict[str, Any]:
            header = self._store.header(source, run, stamp)
            return card_data(header, self._store.audits(source, run, stamp))

        def of_check(run: str, stamp: tuple[int, float]) -> dict[str, Any]:
            return check_card(self._store.check(source, run, stamp))

        found = [(run, stamp, of_audits) for run, stamp in self._store.stamps(source).items()]
        found += [(run, stamp, of_check) for run, stamp in self._store.checks(source).items()]
        cards = []
        for run, stamp, told in sorted(found, key=lambda one: one[0]):
            card: dict[str, Any] = {"run": run, "label": label(run), "stamp": list(stamp)}
            try:
                card |= told(run, stamp)
            except ValueError as error:
                card["problem"] = str(error)
            cards.append(card)
        names = shortened([card["label"] for card in cards], COLUMNS_ON_CARD, "\N{HORIZONTAL ELLIPSIS}")
        for card, name in zip(cards, names, strict=True):
            card["name"] = name
        return _json(request, {"format": metadata.FORMAT, "runs": cards})

    def _run(self, request: wrappers.Request, source: Source) -> werkzeug.Response:
        run, stamp, header = self._named(request, source)
        audits = self._store.audits(source, run, stamp)

        def load() -> tuple[str, int]:
            trunk = self._store.trunk(source, run, stamp)
            named = {"run": run, "label": label(run), "stamp": list(stamp)}
            text = _dumps(named | run_data(header, audits, trunk))
            return text, len(text)

        return _respond(request, self._store.keep((source.experiment, run, "run"), stamp, load), "application/json")

    def _columns(self, request: wrappers.Request, source: Source) -> werkzeug.Response:
        """The numbers: uint32 length of a JSON head, the head, then float32 `[columns, steps, rows]`, little-endian.

        The head holds `columns`, `steps` and `rows` (their positions among the run's rows), and with `line=1` the main
        line and where each row of the run stands along it. It is padded with spaces to a multiple of four bytes, so
        that the numbers can be used where they lie.
        """
        run, stamp, header = self._named(request, source)
        known = known_columns(header)
        columns = _list(request, "columns")
        for name in columns:
            if name not in known:
                raise BadRequestError(f"columns: no column {name!r} in this run; it has {', '.join(known)}")
        wanted = request.args.get("steps", "all")
        steps = None if wanted in ("all", "ends") else [_integer("steps", text) for text in wanted.split(",")]
        rows = _rows(request.args.get("rows", "all"), header)
        tables = self._store.tables(source, run, stamp, wanted == "ends")
        tables = select(tables, header, self._store.ends(source, run, stamp), columns, steps, rows)
        missing = set(steps or ()) - set(tables.steps)
        if missing:
            raise BadRequestError(f"steps: no audit at {sorted(missing)[0]} in this run")
        told: dict[str, Any] = {"columns": columns, "steps": tables.steps, "rows": rows}
        if request.args.get("line") == "1":
            told |= line_data(self._store.trunk(source, run, stamp))
        head = _dumps(told).encode()
        head += b" " * (-len(head) % 4)
        content = struct.pack("<I", len(head)) + head + tables.values.astype("<f4").tobytes()
        packed = gzip.compress(content, compresslevel=1, mtime=0)
        return _respond(request, packed, "application/octet-stream", content_encoding="gzip")

    def _histograms(self, request: wrappers.Request, source: Source) -> werkzeug.Response:
        run, _, header = self._named(request, source)
        kind = _one(request, "kind")
        if kind not in HISTOGRAM_KINDS:
            raise BadRequestError(f"kind: {kind!r}; allowed are {', '.join(HISTOGRAM_KINDS)}")
        path = _one(request, "row")
        names = dict(zip((layer.path for layer in header.layers), metadata.row_names(header.layers), strict=True))
        if path not in names:
            raise BadRequestError(f"row: no row {path!r} in this run")
        made = []
        for step, buckets in self._store.histograms(source, run, f"{kind}/{names[path]}"):
            if buckets.ndim == 2 and buckets.shape[1] == 3 and len(buckets) and np.isfinite(buckets).all():
                edges = [float(buckets[0, 0]), float(buckets[-1, 1])]
                made.append({"step": step, "low": edges[0], "high": edges[1], "counts": buckets[:, 2].tolist()})
        return _json(request, {"histograms": made})

    def _coordinates(self, request: wrappers.Request, source: Source) -> werkzeug.Response:
        run = _one(request, "run")
        stamps = self._store.checks(source)
        if run not in stamps:
            raise BadRequestError(f"run: no run {run!r} with a coordinate check in it")
        try:
            check = self._store.check(source, run, stamps[run])
        except ValueError as error:
            raise BadRequestError(f"run: {run!r} cannot be read: {error}") from error
        named = {"run": run, "label": label(run), "stamp": list(stamps[run])}
        return _json(request, named | check_data(check))

    def _named(self, request: wrappers.Request, source: Source) -> tuple[str, tuple[int, float], metadata.Header]:
        """The run that the request names, with its stamp and header."""
        run = _one(request, "run")
        stamps = self._store.stamps(source)
        if run not in stamps:
            raise BadRequestError(f"run: no run {run!r} with an audit in it")
        try:
            return run, stamps[run], self._store.header(source, run, stamps[run])
        except ValueError as error:
            raise BadRequestError(f"run: {run!r} cannot be read: {error}") from error


def constants() -> str:
    """The JavaScript module of what is defined in Python."""
    low, high = BAND
    drawn = {one.column: one for shown in QUANTITIES.values() for one in shown}
    values = {
        "BAND": {"low": low, "high": high},
        "VERDICTS": VERDICTS,
        "OF_THE_SIGNAL": OF_THE_SIGNAL,
        "QUANTITIES": {rule: [one.column for one in shown] for rule, shown in QUANTITIES.items()},
        "DRAWN": {column: {"kind": one.kind, "band": one.usual, "base": one.base} for column, one in drawn.items()},
    }
    lines = [f"export const {name} = {json.dumps(value)};" for name, value in values.items()]
    return "\n".join(["// Made by routes.py from the constants of the Python package.", *lines, ""])


def _static_files() -> dict[str, tuple[bytes, str]]:
    """Name -> (content, type) of every file of the page."""
    folder = importlib.resources.files(__package__) / "static"
    files = {"constants.js": (constants().encode(), _TYPES[".js"])}
    for entry in folder.iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if entry.is_file() and suffix in _TYPES:
            files[entry.name] = (entry.read_bytes(), _TYPES[suffix])
    return files


def _serve_file(content: bytes, content_type: str, environ: dict[str, Any], start_response: Any) -> Any:
    response = http_util.Respond(wrappers.Request(environ), content, content_type)
    return response(environ, start_response)


def _json(request: wrappers.Request, value: Any, code: int = 200) -> werkzeug.Response:
    return _respond(request, _dumps(value), "application/json", code=code)


def _respond(request: wrappers.Request, content: str | bytes, content_type: str, **more: Any) -> werkzeug.Response:
    response: werkzeug.Response = http_util.Respond(request, content, content_type, **more)
    return response


def _dumps(value: dict[str, Any]) -> str:
    return json.dumps(to_jsonable(value), allow_nan=False, separators=(",", ":"))


def _one(request: wrappers.Request, name: str) -> str:
    given = request.args.getlist(name)
    if len(given) != 1 or not given[0]:
        raise BadRequestError(f"{name}: given {len(given)} times or empty; it is needed once")
    return str(given[0])


def _list(request: wrappers.Request, name: str) -> list[str]:
    items = _one(request, name).split(",")
    if len(items) > _LONGEST_LIST:
        raise BadRequestError(f"{name}: {len(items)} names; at most {_LONGEST_LIST} are allowed")
    return items


def _rows(chosen: str, header: metadata.Header) -> list[int]:
    """Positions of the rows that `all`, `layer` (the layers without their parts) or a list of positions means."""
    if chosen in ("all", "layer"):
        return [i for i, layer in enumerate(header.layers) if chosen == "all" or layer.role == "layer"]
    rows = [_integer("rows", text) for text in chosen.split(",")]
    if not all(0 <= row < len(header.layers) for row in rows):
        raise BadRequestError(f"rows: {chosen!r}; allowed are all, layer, or positions under {len(header.layers)}")
    return rows


def _integer(name: str, text: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20):
        raise BadRequestError(f"{name}: {text!r} is no whole number")
    return int(text)
