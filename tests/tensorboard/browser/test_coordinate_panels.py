"""A coordinate check on the page: its card, its two panels, its table; chosen and left again, and with axe-core."""

import accessibility
import chromium
import pytest
from conftest import write as write_audits
from deep_network import Network
from tensorboard_server import tensorboard
from test_page import all_of, one, shown, text_of, until

from keras_initaudit.report.width import CoordinateCheck, CoordinateRow
from keras_initaudit.tensorboard.widths import write

WIDTHS = (64, 256, 1024)
EVIL = "<img src=x onerror=alert(1)>"


def row(name, start, change, size=0.1):
    points = tuple((width, (width / 64) ** start, size * (width / 64) ** change) for width in WIDTHS)
    return CoordinateRow(name, start, 0.01, change, 0.02, points=points)


ROWS = (row("hidden", 0.0, 0.0), row(EVIL, -0.5, 1.0), row("norm", 0.0, -0.5, 0.05))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    write(folder / "width", CoordinateCheck(WIDTHS, 5, 1, ROWS))
    write_audits(folder / "good", Network(4), (0, 1))
    with tensorboard(tmp_path_factory.mktemp("server"), folder) as running:
        assert len(running.runs(2)) == 2
        yield running


def opened(page, **options):
    """The page with all of its cards drawn; the check, which is the worst, is chosen."""
    driver = page(**options)
    chromium.wait_for(driver, ".card svg.profile", 1)
    return driver


def slopes(driver, panel):
    """Of each line of a panel, by the title: its slope in decades a decade, read from the drawing's own axes."""
    found = driver.execute_script(
        """
        const svg = document.querySelectorAll("svg.coordinates")[arguments[0]];
        const at = (text, name) => Number(text.getAttribute(name));
        const ticks = [...svg.querySelectorAll("text.tick")];
        const up = ticks.filter((text) => text.getAttribute("text-anchor") === "end");
        const across = ticks.filter((text) => text.getAttribute("text-anchor") === "middle");
        const unit = (texts, name) => (at(texts.at(-1), name) - at(texts[0], name)) /
          Math.log10(Number(texts.at(-1).textContent) / Number(texts[0].textContent));
        const [width, height] = [unit(across, "x"), unit(up, "y")];
        return [...svg.querySelectorAll(".of-layer")].map((group) => {
          const points = group.querySelector(".line").getAttribute("d").slice(1).split("L").map((p) => p.split(" "));
          const [[a, b], [c, d]] = [points[0], points.at(-1)].map((point) => point.map(Number));
          return [group.dataset.row, (d - b) / height / ((c - a) / width)];
        });
        """,
        panel,
    )
    return dict(found)


def test_the_card_the_panels_and_the_table_tell_the_check(page):
    driver = opened(page)
    first, second = (card.text for card in all_of(driver, ".card"))  # the worst comes first
    assert "coordinate check" in first
    assert f"{EVIL} explodes with width, and 1 of 2 more layers with it" in first
    assert "coordinate check" not in second
    assert shown(driver) == "width"
    assert "BAD" in text_of(driver, ".run-head")
    for panel, field in enumerate(("start", "change")):
        drawn = slopes(driver, panel)
        assert drawn.keys() == {one.layer for one in ROWS}
        for expected in ROWS:  # a pixel of 250 for two decades, over one decade of width
            assert drawn[expected.layer] == pytest.approx(getattr(expected, field), abs=0.01)
    cells = driver.execute_script(
        "return [...document.querySelectorAll('.slopes tbody tr')].map((row) => [...row.cells].map((c) => c.innerText))"
    )
    assert [[name, change, meaning] for name, _, change, meaning in cells] == [
        ["hidden", "+0.00 \u00b1 0.02", "stable"],
        [EVIL, "+1.00 \u00b1 0.02", "explodes with width"],
        ["norm", "-0.50 \u00b1 0.02", "stops learning with width"],
    ]
    # Colour is not the only sign: dashes and shapes tell the meanings apart, too.
    dashes = driver.execute_script(
        "const lines = document.querySelectorAll('.panels section:last-child .line');"
        "return [...lines].map((line) => getComputedStyle(line).strokeDasharray);"
    )
    assert len(set(dashes)) == 3


def test_one_goes_to_an_audit_and_back(page):
    driver = opened(page)
    all_of(driver, ".card")[1].click()
    until(lambda: all_of(driver, ".run .heatmap"))
    assert not all_of(driver, ".comparing")  # a check is nothing to compare an audit with
    assert shown(driver) == "good"
    all_of(driver, ".card")[0].click()
    until(lambda: all_of(driver, ".run .panels"))
    assert shown(driver) == "width"
    driver.execute_script(
        "document.querySelector('.slopes tbody tr:nth-child(2)').dispatchEvent(new PointerEvent('pointerenter'))"
    )
    assert [group.get_attribute("data-row") for group in all_of(driver, ".of-layer.here")] == [EVIL] * 2
    assert one(driver, "h1")


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(page, axe, dark):
    driver = opened(page, dark=dark)
    assert len(all_of(driver, "svg.coordinates")) == 2
    assert accessibility.violations(driver, axe) == []
    names = [picture.get_attribute("aria-label") for picture in all_of(driver, "svg.coordinates")]
    assert "hidden +0.00 \u00b1 0.02" in names[1]
