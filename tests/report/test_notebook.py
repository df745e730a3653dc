"""A notebook that runs: what the callback, a report and a finding show there, and how it looks in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest

from keras_initaudit.records import Finding
from keras_initaudit.report import Report, colours
from keras_initaudit.report.notebook import show

ROOT = Path(__file__).parents[2]
CELLS = (
    f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import keras, numpy as np
from keras_initaudit import InitAudit
keras.utils.set_random_seed(0)
x, y = np.random.default_rng(0).normal(size=(32, 16)).astype("float32"), np.arange(32) % 4
normal = keras.initializers.RandomNormal(stddev=6.0)
hidden = [keras.layers.Dense(16, "tanh", kernel_initializer=normal) for _ in range(6)]
model = keras.Sequential([keras.Input((16,)), *hidden, keras.layers.Dense(4, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
""",
    """
seen = InitAudit(log_dir=False, schedule=[], verbose=2)
history = model.fit(x, y, verbose=0, callbacks=[seen])
""",
    "seen.reports[0]",
    "seen.findings[0]",
)


def test_without_a_notebook_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert not show(Report.from_json(MADE))
    assert capsys.readouterr().out == ""


MADE = (
    '{"schema": "keras_initaudit.report", "version": 1, "findings": [],'
    ' "snapshot": {"step": 0, "layers": [], "statistics": []}}'
)


def test_a_finding_alone_has_its_words_and_no_markup_of_a_name() -> None:
    finding = Finding("seen", "bad", "<b>", "what <i> saw", remedy="a < b", reference="Who & when", proof="it helps")
    text = finding._repr_html_()  # type: ignore[attr-defined]
    for part in ("seen", "&lt;b&gt;", "What &lt;i&gt; saw.", "a &lt; b", "Who &amp; when", "Measured: It helps."):
        assert part in text
    assert "<b>" not in text
    assert "<i>" not in text


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """The outputs of each cell, but what goes to the standard error."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: the extra `test` has it")
    import nbformat

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    folder = str(tmp_path_factory.mktemp("notebook"))
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": folder}}).execute()
    return [[out for out in cell.outputs if out.get("name") != "stderr"] for cell in book.cells]


def test_the_callback_shows_html_and_keeps_the_text_for_who_cannot(outputs: Any) -> None:
    shown = [out for out in outputs[1] if out.output_type == "display_data"]
    printed = "".join(out.text for out in outputs[1] if out.output_type == "stream")
    assert len(shown) == 1
    assert "saturated-units" in shown[0].data["text/html"]
    assert shown[0].data["text/plain"].startswith("Init Audit: ")
    assert "Init Audit:" not in printed


def test_a_report_and_a_finding_are_html(outputs: Any) -> None:
    for cell, kind in ((outputs[2], "Report"), (outputs[3], "Finding")):
        (out,) = cell
        assert out.output_type == "execute_result"
        assert out.data["text/html"].startswith('<div class="initaudit"'), kind
    assert outputs[2][0].data["text/html"] == outputs[1][-1].data["text/html"]  # the same functions
    assert "<svg" not in outputs[3][0].data["text/html"]


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    reason = chromium.missing()
    if reason and not chromium.required():
        pytest.skip(reason)
    with chromium.browser(800, 1400) as driver:
        yield driver


CONTRASTS = """
const channels = (text) => text.match(/[\\d.]+/g).map(Number);
const luminance = (rgb) => rgb.slice(0, 3)
  .map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => {
  for (let one = node; one; one = one.parentElement) {
    const colour = channels(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const found = [];
for (const node of document.querySelectorAll(".initaudit *")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (!own || ["style", "title"].includes(node.localName)) continue;
  const style = getComputedStyle(node);
  const colour = channels(node instanceof SVGElement ? style.fill : style.color);
  const [low, high] = [luminance(colour), luminance(behind(node))].sort((a, b) => a - b);
  found.push([(high + 0.05) / (low + 0.05), node.textContent.slice(0, 30), style.fontSize]);
}
return found;
"""


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_legible_and_fits_in_a_browser(outputs: Any, chrome: Any, tmp_path: Path, dark: bool) -> None:
    shown = "".join(out.data["text/html"] for cell in outputs[1:] for out in cell if "text/html" in out.get("data", {}))
    page = tmp_path / "page.html"
    theme = f'data-jp-theme-light="{str(not dark).lower()}" style="background: {"#111" if dark else "#fff"}"'
    page.write_text(f'<!doctype html><meta charset="utf-8"><body {theme}>{shown}')
    chrome.get(page.as_uri())
    surface = (colours.DARK if dark else colours.LIGHT)["surface"]
    read = "return getComputedStyle(document.querySelector('.initaudit')).backgroundColor"
    assert chrome.execute_script(read) == f"rgb({', '.join(str(int(surface[i : i + 2], 16)) for i in (1, 3, 5))})"
    contrasts = chrome.execute_script(CONTRASTS)
    assert len(contrasts) > 60
    assert min(contrasts)[0] >= 4.5, sorted(contrasts)[:5]
    chrome.execute_script("document.querySelector('.initaudit h3').style.color = arguments[0]", surface)
    assert min(chrome.execute_script(CONTRASTS))[0] == pytest.approx(1.0)  # the measure can fail
    assert chrome.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert len(chrome.find_elements("css selector", ".initaudit svg[role=img][aria-label]")) == 2 * 2
    assert len(chrome.find_elements("css selector", "svg rect[fill*='bad'], svg rect[fill*='warning']")) >= 2 * 6
    outside = """
    return [...document.querySelectorAll(".initaudit svg")].flatMap((svg) => {
      const frame = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text, circle, rect, polyline")].filter((node) => {
        const box = node.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
      }).map((node) => node.outerHTML);
    });
    """
    assert chrome.execute_script(outside) == []
    assert chromium.errors(chrome) == []
