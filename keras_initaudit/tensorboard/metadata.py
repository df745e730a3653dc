"""Names of the log: its tags, its format, and the JSON that travels beside the tensors.

One audit leaves three tensors of our own, which the page and the command line read back, and what TensorBoard's stock
dashboards show. This module says what each is called and how the header of a run is spelt; it reads and writes no
file. Standard library and TensorBoard's protos only.

The format number grows when an old reader would misread a new log. Added columns, added fields of a layer and added
keys do not: readers go by name and leave out what they do not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from tensorboard.compat.proto import summary_pb2

from ..records import (
    COLUMNS,
    Finding,
    LayerInfo,
    LossKind,
    Snapshot,
    finding_from_json,
    layer_from_json,
    number,
    to_jsonable,
)

PLUGIN_NAME = "initaudit"
FORMAT = 1
RUN_FOLDER = "initaudit"
"""Name of the audit's run below a log folder: a run of its own, because two writers in one run lose data."""

INIT_TAG = "initaudit/init"
"""Statistics at step 0 alone, `[rows, columns]` float32: a tag of its own, so that sampling cannot drop it."""
STATS_TAG = "initaudit/stats"
"""Statistics at every audit, `[rows, columns]` float32."""
FINDINGS_TAG = "initaudit/findings"
"""One JSON string at every audit: the findings, and what a snapshot holds besides its rows."""
LOSS_TAG = "loss"
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
    """What stands once at the head of a run: how to read its tensors."""

    format: int
    columns: tuple[str, ...]
    layers: tuple[LayerInfo, ...]

    @property
    def is_newer(self) -> bool:
        """Whether a later version of this package wrote the run."""
        return self.format > FORMAT


def encode_header(layers: Sequence[LayerInfo] | None) -> bytes:
    """The `plugin_content` of a tag: format and columns, and of the first tag the layers too."""
    header: dict[str, Any] = {"format": FORMAT, "columns": list(COLUMNS)}
    if layers is not None:
        header["layers"] = [compact_layer(layer) for layer in layers]
    return json.dumps(header, allow_nan=False, separators=(",", ":")).encode()


def parse_header(content: bytes) -> Header:
    """The header behind a `plugin_content`.

    Raises:
        ValueError: where it is no header of this format; the message says so in words that the page can show.
    """
    try:
        data = json.loads(content)
        version = int(data["format"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"not a log of keras_initaudit: its header cannot be read ({error})") from error
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


def encode_audit(snapshot: Snapshot, findings: Sequence[Finding], changed: Mapping[int, LayerInfo]) -> bytes:
    """The JSON of `FINDINGS_TAG`; `changed` holds the rows that are no longer as the header has them (unfrozen)."""
    record: dict[str, Any] = {
        "format": FORMAT,
        "findings": findings,
        "loss": snapshot.loss,
        "baseline_loss": snapshot.baseline_loss,
        "batch_size": snapshot.batch_size,
        "optimizer": snapshot.optimizer,
        "learning_rate": snapshot.learning_rate,
        "peak_rate": snapshot.peak_rate,
        "momentum": snapshot.momentum,
        "loss_kind": snapshot.loss_kind,
    }
    if changed:
        record["layers"] = {str(row): compact_layer(layer) for row, layer in changed.items()}
    return json.dumps(to_jsonable(record), allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What `FINDINGS_TAG` holds of one audit."""

    findings: tuple[Finding, ...] = ()
    loss: float = math.nan
    baseline_loss: float | None = None
    batch_size: int = 0
    optimizer: str = ""
    learning_rate: float | None = None
    peak_rate: float | None = None
    momentum: float = 0.0
    loss_kind: LossKind = ""
    changed: tuple[tuple[int, LayerInfo], ...] = ()


def parse_audit(content: bytes) -> AuditRecord:
    """The record behind the JSON of `FINDINGS_TAG`; ValueError where it cannot be read."""
    try:
        data = json.loads(content)
        return AuditRecord(
            findings=tuple(finding_from_json(finding) for finding in data.get("findings", ())),
            loss=number(data.get("loss", math.nan)),
            baseline_loss=_optional(data.get("baseline_loss")),
            batch_size=int(data.get("batch_size", 0)),
            optimizer=str(data.get("optimizer", "")),
            learning_rate=_optional(data.get("learning_rate")),
            peak_rate=_optional(data.get("peak_rate")),
            momentum=number(data.get("momentum", 0.0)),
            loss_kind=cast(LossKind, str(data.get("loss_kind", ""))),
            changed=tuple((int(row), layer_from_json(layer)) for row, layer in data.get("layers", {}).items()),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the findings of the log are damaged ({type(error).__name__}: {error})") from error


def row_names(layers: Sequence[LayerInfo]) -> list[str]:
    """What stands after the group in a stock tag: the depth, padded so that text order is depth order, and the path."""
    width = max(3, len(str(max((layer.depth for layer in layers), default=0))))
    return [f"{max(layer.depth, 0):0{width}d}_{layer.path}" for layer in layers]


def tensor_metadata(content: bytes, description: str) -> summary_pb2.SummaryMetadata:
    """The metadata of one of our own tags; without a data class the loaders drop the tag."""
    return summary_pb2.SummaryMetadata(
        summary_description=description,
        data_class=summary_pb2.DATA_CLASS_TENSOR,
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content),
    )


def stock_metadata(plugin_name: str) -> summary_pb2.SummaryMetadata:
    """The metadata of a tag that a stock dashboard draws; the empty content is version 0 of each of their formats."""
    return summary_pb2.SummaryMetadata(
        data_class=summary_pb2.DATA_CLASS_TENSOR,
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin_name),
    )


def _optional(value: Any) -> float | None:
    return None if value is None else number(value)
