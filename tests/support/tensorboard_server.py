"""A real TensorBoard in a process of its own, with the tab found as an installed package's tab is found."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def environment(folder: Path, *first: Path) -> dict[str, str]:
    """The environment in which TensorBoard sees our entry point: as installed, else from pyproject.toml.

    `first` are folders that stand before all others on the path.
    """
    path = [str(entry) for entry in first]
    declared = importlib.metadata.entry_points(group="tensorboard_plugins")
    if "initaudit" not in {entry.name for entry in declared}:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        info = folder / "declared" / f"keras_initaudit-{project['version']}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} = {value}" for name, value in project["entry-points"]["tensorboard_plugins"].items()]
        (info / "entry_points.txt").write_text("\n".join(["[tensorboard_plugins]", *lines, ""]))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: keras-initaudit\nVersion: {project['version']}\n")
        path += [str(info.parent), str(ROOT)]
    path += [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "TF_CPP_MIN_LOG_LEVEL": "3"}


class Server:
    """One running TensorBoard."""

    def __init__(self, port: int, prefix: str, log: Path) -> None:
        self.address = f"http://127.0.0.1:{port}{prefix}/"
        self._log = log

    def get(self, route: str) -> bytes:
        """The body of an answer; urllib's HTTPError where it is an error."""
        with urllib.request.urlopen(self.address + route, timeout=30) as answer:
            return answer.read()

    def json(self, route: str) -> Any:
        return json.loads(self.get(route))

    def runs(self, expected: int, patience: float = 30) -> list[dict[str, Any]]:
        """The runs of the tab, as soon as there are as many as expected."""
        end = time.monotonic() + patience
        while True:
            runs = self.json("data/plugin/initaudit/runs")["runs"]
            if len(runs) >= expected or time.monotonic() > end:
                return runs
            time.sleep(0.1)

    def output(self) -> str:
        return self._log.read_text()


@contextlib.contextmanager
def tensorboard(
    folder: Path, logdir: Path | str | None, *arguments: str, prefix: str = "", first: tuple[Path, ...] = ()
) -> Iterator[Server]:
    """Starts TensorBoard on a free port and stops it at the end; `folder` is for what it leaves behind."""
    log = folder / "tensorboard.log"
    command = [sys.executable, "-m", "tensorboard.main", "--port=0", "--host=127.0.0.1", "--reload_interval=1"]
    command += [f"--logdir={logdir}"] if logdir else []
    command += [f"--path_prefix={prefix}"] if prefix else []
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *arguments], stdout=output, stderr=subprocess.STDOUT, env=environment(folder, *first)
        )
    try:
        end = time.monotonic() + 90
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"TensorBoard did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield Server(int(found[1]), prefix, log)
    finally:
        process.terminate()
        process.wait(30)
