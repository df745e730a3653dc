"""A coordinate check in the log: the check for the tab, scalars whose step is the width, and text.

Imports no TensorFlow.
"""

from __future__ import annotations

import json
import math
import os
import time

from tensorboard.compat.proto import event_pb2, summary_pb2

from ..report.width import CoordinateCheck
from . import metadata
from .eventfile import frame
from .runfile import claim, head, log_error

START_TAG, CHANGE_TAG, TEXT_TAG = "coordinates/start", "coordinates/change", "coordinates/check"


def write(log_dir: str | os.PathLike[str], check: CoordinateCheck) -> str:
    """Writes a check into a run folder of its own: `log_dir`, or the first of `log_dir-2`, ... that holds no log.

    Each layer has the scalars `coordinates/start/NAME` and `coordinates/change/NAME`: log2 of the rms, the mean over
    the starts of a width, at the step of that number.

    Args:
        log_dir: The folder.
        check: The check.

    Returns:
        The folder that was written.

    Raises:
        LogError: Where the folder cannot be made or written.
    """
    value = summary_pb2.Summary.Value
    by_step: dict[int, list[summary_pb2.Summary.Value]] = {width: [] for width in check.widths}
    for row in check.rows:
        for tag, at in ((START_TAG, 1), (CHANGE_TAG, 2)):
            for width, mean in row.means(at):
                by_step[width].append(value(tag=f"{tag}/{row.layer}", simple_value=math.log2(mean)))
    about = metadata.tensor_metadata(json.dumps({"format": metadata.FORMAT}).encode(), "A coordinate check.")
    whole = [
        value(tag=metadata.COORDINATES_TAG, metadata=about, tensor=metadata.string_tensor(check.to_json().encode())),
        value(
            tag=TEXT_TAG,
            metadata=metadata.stock_metadata("text"),
            tensor=metadata.string_tensor(check.markdown().encode()),
        ),
    ]
    now = time.time()
    events = [head()]
    events += [
        event_pb2.Event(wall_time=now, step=width, summary=summary_pb2.Summary(value=values))
        for width, values in (*by_step.items(), (check.widths[-1], whole))
        if values
    ]
    path, file = claim(log_dir)
    try:
        with file:
            file.write(b"".join(frame(event.SerializeToString()) for event in events))
    except OSError as error:
        raise log_error(path.parent, error) from error
    return str(path.parent)
