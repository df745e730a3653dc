"""What the tab costs on a log of 2000 layers, 200 audits and 8 runs: sizes, times of the routes, time to the picture.

    python tests/benchmarks/page.py [--layers 2000] [--audits 200] [--runs 8] [--no-browser]

The numbers of the log come from a real network of that depth, measured once forward and backward; each further audit
has them moved by a random walk in decades, so that they compress no better than measured ones. TensorBoard is started
as a user starts it; the clock of the browser starts when the tab is asked for and stops when the chosen run's pictures
and all cards are drawn.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "tensorboard" / "browser")]

from deep_network import Network, findings_of  # noqa: E402  found through the line above
from tensorboard_server import tensorboard  # noqa: E402

from keras_initaudit.records import COLUMNS, Snapshot, Statistics  # noqa: E402
from keras_initaudit.tensorboard.summary import Writer, statistics_array  # noqa: E402


def walk(first: Snapshot, audits: int, seed: int):
    """`audits` snapshots: the first as measured, the others moved from it step by step."""
    draw = np.random.default_rng(seed)
    table = statistics_array(first)
    scales = [i for i, name in enumerate(COLUMNS) if name.endswith(("_rms", "_max", "_std"))]
    for audit in range(audits):
        rows = tuple(Statistics(*row) for row in table.tolist())
        yield dataclasses.replace(first, step=audit * 10, statistics=rows)
        table[:, scales] *= 10 ** (0.05 * draw.standard_normal((len(table), len(scales))))


def write(folder: Path, layers: int, audits: int, runs: int) -> None:
    stds = np.linspace(1.30, 1.55, runs)
    spent = []
    for run, std in enumerate(stds):
        (first,) = Network(layers, std=float(std), width=16, seed=run).audits((0,), histograms=False)
        findings = findings_of(first)
        writer = Writer(folder / f"run_{run}_std_{std:.2f}" / "initaudit")
        for snapshot in walk(first, audits, run):
            start = time.perf_counter()
            writer.write(snapshot, findings)
            spent.append(time.perf_counter() - start)
        writer.close()
    size = sum(path.stat().st_size for path in folder.rglob("*tfevents*"))
    print(f"written: {size / 2**20:.0f} MiB, {1e3 * np.median(spent):.1f} ms an audit (median)", flush=True)


def timed(address: str) -> tuple[float, int, int]:
    """Seconds, bytes on the wire, bytes unpacked."""
    import gzip

    request = urllib.request.Request(address, headers={"Accept-Encoding": "gzip"})
    start = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        data = answer.read()
        packed = answer.headers.get("Content-Encoding") == "gzip"
    return time.perf_counter() - start, len(data), len(gzip.decompress(data)) if packed else len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2000)
    parser.add_argument("--audits", type=int, default=200)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--load_fast", default="auto")
    parser.add_argument("--keep", type=Path, help="write the log here, or use the one that is here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logs = given.keep or folder / "logs"
        if not logs.exists():
            write(logs, given.layers, given.audits, given.runs)
        start = time.perf_counter()
        with tensorboard(folder, logs, f"--load_fast={given.load_fast}") as server:
            runs = server.runs(given.runs, 600)
            while min(run.get("audits", 0) for run in runs) < given.audits:
                time.sleep(0.5)
                runs = server.runs(given.runs, 600)
            print(f"TensorBoard has read all of it {time.perf_counter() - start:.1f} s after its start")
            if not given.no_browser:
                in_browser(server.address, given.runs)
            plugin = f"{server.address}data/plugin/initaudit/"
            run = runs[0]["run"]
            profile = "activation_rms,forward_nonfinite,backward_rms,backward_level,backward_nonfinite"
            routes = {
                "runs": "runs",
                "run": f"run?run={run}",
                "columns, a card": f"columns?run={run}&columns={profile}&steps=ends&line=1",
                "columns, the chosen run": f"columns?run={run}&columns={profile}",
            }
            print(f"{'route':26}{'first':>9}{'again':>9}{'wire':>10}{'unpacked':>10}")
            for title, route in routes.items():
                first, wire, whole = timed(plugin + route)
                again = min(timed(plugin + route)[0] for _ in range(3))
                print(f"{title:26}{first:7.3f} s{again:7.3f} s{wire / 1024:6.0f} KiB{whole / 1024:6.0f} KiB")


def in_browser(address: str, runs: int) -> None:
    from chromium import browser, open_tab

    for title in ("the tab drawn, the first time", "the tab drawn again"):
        with browser(1600, 1000) as driver:
            open_tab(driver, address, wait=60)
            print(f"{title + ':':42}{drawn(driver, runs):6.2f} s")
            if title.endswith("again"):
                react(driver)


def drawn(driver, runs: int) -> float:
    """Seconds from the start of the page's frame to the last picture, by the browser's own clock."""
    end = time.monotonic() + 60
    while len(driver.find_elements("css selector", ".card svg.profile")) < runs and time.monotonic() < end:
        time.sleep(0.05)
    return driver.execute_script("return performance.getEntriesByName('initaudit-drawn').at(-1).startTime / 1000")


def react(driver) -> None:
    """The longest task of the page's thread while the pointer moves over the pictures and the page scrolls."""
    for title, body in {
        "a move over the heat map": """
            const element = document.querySelector("canvas.cells");
            const area = element.getBoundingClientRect();
            const at = { clientX: area.left + area.width * part, clientY: area.top + area.height * part };
            element.dispatchEvent(new PointerEvent("pointermove", { ...at, bubbles: true }));""",
        "a move over the profile": """
            const element = document.querySelector(".profile-place");
            const area = element.getBoundingClientRect();
            const at = { clientX: area.left + area.width * part, clientY: area.top + 20 };
            element.dispatchEvent(new PointerEvent("pointermove", { ...at, bubbles: true }));""",
        "scrolling": """
            const element = document.scrollingElement;
            element.scrollTop = (element.scrollHeight - element.clientHeight) * part;""",
        "scrolling the cards": """
            const element = document.querySelector(".cards");
            element.scrollTop = (element.scrollHeight - element.clientHeight) * part;""",
    }.items():
        took = driver.execute_async_script(f"""
            const done = arguments[0], took = [];
            let i = 0, before = null;
            function frame(now) {{
              const part = i / 60, start = performance.now();
              {body}
              document.body.getBoundingClientRect();
              took.push(performance.now() - start);
              if (++i < 60) requestAnimationFrame(frame);
              else setTimeout(() => done(took.sort((a, b) => a - b)), 300);
            }}
            window.slow ??= [];
            window.watch ??= new PerformanceObserver((list) => slow.push(...list.getEntries().map((e) => e.duration)));
            slow.length = 0;
            watch.observe({{ entryTypes: ["longtask"] }});
            requestAnimationFrame(frame);
        """)
        slow = driver.execute_script("return slow")
        print(
            f"{title + ':':42}median {took[len(took) // 2]:.1f} ms, worst {took[-1]:.1f} ms, longest task "
            f"{max(slow):.0f} ms"
            if slow
            else f"{title + ':':42}median {took[len(took) // 2]:.1f} ms, worst {took[-1]:.1f} ms, no task over 50 ms"
        )


if __name__ == "__main__":
    main()
