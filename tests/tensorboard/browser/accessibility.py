"""axe-core on our own frame: the package from npm, kept in a folder of the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

VERSION = "4.10.3"


def source() -> str | None:
    """The script of axe-core, or None where npm cannot bring it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "keras_initaudit" / f"axe-{VERSION}"
    script = cache / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists() and shutil.which("npm"):
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(cache), f"axe-core@{VERSION}"]
        subprocess.run(command, capture_output=True, timeout=300, check=False)
    return script.read_text() if script.exists() else None


def violations(driver: Any, script: str) -> list[str]:
    """What axe-core finds in the frame that the driver is in: rule, help, and the first elements."""
    driver.execute_script(script)
    found = driver.execute_async_script(
        """
        const done = arguments[0];
        axe.run(document, { resultTypes: ["violations"] }).then(
          ({ violations }) => done(violations.map(({ id, help, nodes }) =>
            `${id}: ${help}: ${nodes.slice(0, 4).map((node) => node.html.slice(0, 160) + " " +
              (node.any[0]?.message ?? node.all[0]?.message ?? "")).join(" | ")}`)),
          (error) => done([String(error)]));
        """
    )
    return list(found)
