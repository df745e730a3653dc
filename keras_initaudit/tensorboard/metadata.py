"""Names and format of the log: its tags, its header, and the JSON beside the tensors.

One audit writes three tensors for the page and the command line, and what TensorBoard's stock dashboards show. This
module has the name of each and the form of a run's header; it reads and writes no file. Standard library and
TensorBoard's protos only.

The format number grows when an old reader would misread a new log. Added columns, added fields of a layer and added
keys do not: readers go by name and leave out what they do not know.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from tensorboard.compat.proto import summary_pb2, tensor_pb2, types_pb2

from ..records import (
    COLUMNS,
    Finding,
    LayerInfo,
    Snapshot,
    Trial,
    finding_from_json,
    layer_from_json,
    scalars,
    snapshot_without_rows,
    to_jsonable,
    trial_from_json,
)

PLUGIN_NAME = "initaudit"
FORMAT = 2
RUN_FOLDER = "initaudit"
"""Name of the audit's run below a log folder: a run of its own, because two writers in one run lose data."""

INIT_TAG = "initaudit/init"
"""Statistics at step 0 alone, `[rows, columns]` float32: a tag of its own, so that sampling cannot drop it."""
STATS_TAG = "initaudit/stats"
"""Statistics at every audit, `[rows, columns]` float32."""
FINDINGS_TAG = "initaudit/findings"
"""One JSON string at every audit: the findings, the trials that are new, and what a snapshot holds besides its rows."""
COORDINATES_TAG = "initaudit/coordinates"
"""One JSON string in a run of its own: a coordinate check, as `CoordinateCheck.to_json` writes it."""
LOSS_TAG = "loss"
TRIAL_GROUP = "trial"
"""Group of the stock scalars with the losses of a trial; their steps are its updates."""
REPORT_TAG = "report"

SCALARS: tuple[tuple[str, str, bool], ...] = (
    ("activation_rms_log10", "activation_rms", True),
    ("activation_spread", "activation_spread", False),
    ("activation_dead", "activation_dead", False),
    ("activation_saturated", "activation_saturated", False),
    ("backward_rms_log10", "backward_rms", True),
    ("weight_rms_log10", "weight_rms", True),
    ("gradient_rms_log10", "gradient_rms", True),
    ("update_log10", "update_log10", False),
)
"""The stock scalars: name of the group, column, and whether its logarithm is written (the quantity is a scale)."""
NONFINITE_SCALAR = "nonfinite"
"""Group of the largest non-finite fraction of a row."""
NONFINITE_COLUMNS = tuple(name for name in COLUMNS if name.endswith("_nonfinite"))
LOG_OF_ZERO = -46.0
"""Written for log10(0): just under the smallest float32 (1.4e-45). An infinity would blank the chart's axis."""


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a run, written once: how to read its tensors."""

    format: int
    columns: tuple[str, ...]
    layers: tuple[LayerInfo, ...]

    @property
    def is_newer(self) -> bool:
        """Whether a later version of this package wrote the run."""
        return self.format > FORMAT


def encode_header(layers: Sequence[LayerInfo] | None) -> bytes:
    """The `plugin_content` of a tag of the audits: format and columns, and of the first tag the layers too."""
    header: dict[str, Any] = {"format": FORMAT, "columns": list(COLUMNS)}
    if layers is not None:
        header["layers"] = [compact_layer(layer) for layer in layers]
    return json.dumps(header, allow_nan=False, separators=(",", ":")).encode()


def parse_header(content: bytes) -> Header:
    """The header that a `plugin_content` holds.

    Raises:
        ValueError: where it is no header of this format, or of an older one; the page shows the message.
    """
    try:
        data = json.loads(content)
        version = int(data["format"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"not a log of keras_initaudit: its header cannot be read ({error})") from error
    if version < FORMAT:
        raise ValueError(
            f"log format {version} is older than this version of keras_initaudit reads ({FORMAT}): "
            "audit again, or read it with the version that wrote it"
        )
    try:
        columns = tuple(str(name) for name in data["columns"])
        layers = tuple(layer_from_json(layer) for layer in data.get("layers", ()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if version > FORMAT:
            raise ValueError(
                f"log format {version} is newer than this version of keras_initaudit reads ({FORMAT}): "
                "upgrade the one that runs TensorBoard"
            ) from error
        raise ValueError(f"the header of the log is damaged ({type(error).__name__}: {error})") from error
    return Header(version, columns, layers)


_PLAIN = LayerInfo(path="", depth=0)
_FIELDS = tuple(f.name for f in fields(LayerInfo))


def compact_layer(layer: LayerInfo) -> dict[str, Any]:
    """The JSON form of `layer` without the fields that have their default value, which are most."""
    return {
        name: to_jsonable(value)
        for name in _FIELDS
        if (value := getattr(layer, name)) != getattr(_PLAIN, name) or name in ("path", "depth")
    }


def encode_audit(
    snapshot: Snapshot, findings: Sequence[Finding], changed: Mapping[int, LayerInfo], trials: Sequence[Trial] = ()
) -> bytes:
    """The JSON of `FINDINGS_TAG`; `changed` holds the rows that are no longer as the header has them (unfrozen)."""
    record: dict[str, Any] = {
        "format": FORMAT,
        "findings": findings,
        **scalars(snapshot),
    }
    if trials:
        record["trials"] = trials
    if changed:
        record["layers"] = {str(row): compact_layer(layer) for row, layer in changed.items()}
    return json.dumps(to_jsonable(record), allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What `FINDINGS_TAG` holds of one audit."""

    findings: tuple[Finding, ...] = ()
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(0, (), ()))
    """Without its step and its rows, which stand in the tables."""
    changed: tuple[tuple[int, LayerInfo], ...] = ()
    trials: tuple[Trial, ...] = ()
    """Those that no earlier audit holds."""


def parse_audit(content: bytes) -> AuditRecord:
    """The record that the JSON of `FINDINGS_TAG` holds; ValueError where it cannot be read."""
    try:
        data = json.loads(content)
        return AuditRecord(
            findings=tuple(finding_from_json(finding) for finding in data.get("findings", ())),
            snapshot=snapshot_without_rows(data),
            changed=tuple((int(row), layer_from_json(layer)) for row, layer in data.get("layers", {}).items()),
            trials=tuple(_readable_trials(data.get("trials", ()))),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the findings of the log are damaged ({type(error).__name__}: {error})") from error


def _readable_trials(written: Any) -> Iterator[Trial]:
    """Without those that are damaged: the findings beside them can be read all the same."""
    for trial in written if isinstance(written, list) else ():
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            yield trial_from_json(trial)


def row_names(layers: Sequence[LayerInfo]) -> list[str]:
    """The end of a stock tag, after its group: the depth, padded so that text order is depth order, and the path."""
    width = max(3, len(str(max((layer.depth for layer in layers), default=0))))
    return [f"{max(layer.depth, 0):0{width}d}_{layer.path}" for layer in layers]


def tensor_metadata(content: bytes, description: str) -> summary_pb2.SummaryMetadata:
    """The metadata of one of our own tags; without a data class the loaders drop the tag."""
    return summary_pb2.SummaryMetadata(
        summary_description=description,
        data_class=summary_pb2.DATA_CLASS_TENSOR,
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content),
    )


def string_tensor(text: bytes) -> tensor_pb2.TensorProto:
    """A scalar string tensor."""
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text])


def stock_metadata(plugin_name: str) -> summary_pb2.SummaryMetadata:
    """The metadata of a tag that a stock dashboard draws; the empty content is version 0 of each of their formats."""
    return summary_pb2.SummaryMetadata(
        data_class=summary_pb2.DATA_CLASS_TENSOR,
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin_name),
    )
