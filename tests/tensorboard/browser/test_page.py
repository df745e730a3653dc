"""The tab in a real browser inside a real TensorBoard: what is drawn, read back from the drawing."""

import json
import math
import time
from urllib.parse import quote

import chromium
import numpy as np
import pytest
from conftest import EVIL, STEPS, write
from deep_network import Network, findings_of
from selenium.webdriver.common.keys import Keys
from tensorboard_server import tensorboard

from keras_initaudit.flow import Flow
from keras_initaudit.numerals import count, num, percent
from keras_initaudit.records import Finding
from keras_initaudit.report import BAND
from keras_initaudit.report.parts import DIGITS
from keras_initaudit.report.quantities import QUANTITIES
from keras_initaudit.tensorboard.summary import Writer


def all_of(driver, selector):
    return driver.find_elements("css selector", selector)


def one(driver, selector):
    (element,) = all_of(driver, selector)
    return element


def until(condition, wait=15.0):
    """The first true value of `condition`, or a failure."""
    end = time.monotonic() + wait
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
    return value


def number(text):
    """The number that the page has written."""
    return float(text.strip("\N{DOWNWARDS ARROW}\N{UPWARDS ARROW} ").replace("\N{MINUS SIGN}", "-"))


def choose(run):
    return f"&p.initaudit.run={quote(run + '/initaudit', safe='')}"


def shown(driver):
    """The label of the chosen run."""
    return text_of(driver, ".run-head h2")


def text_of(driver, selector):
    """The text of the first such element, empty without one; by one script: the page may be drawing it anew."""
    return driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)


def head_text(driver):
    return text_of(driver, ".run-head")


def drawn_decades(driver, series):
    """The levels of one series of the large profile, from the places of its points and of the axis' numbers."""
    return driver.execute_script(
        """
        const svg = document.querySelector(".run .profile");
        const number = (element, name) => Number(element.getAttribute(name));
        const texts = [...svg.querySelectorAll("text.tick[data-decade]")];
        const ticks = texts.map((text) => [Number(text.dataset.decade), number(text, "y") - 4]);
        const [[d0, y0], [d1, y1]] = [ticks[0], ticks.at(-1)];
        const points = [...svg.querySelectorAll(`g.points.${arguments[0]} > *`)];
        const y = (point) =>
          point.tagName === "circle" ? number(point, "cy") : number(point, "y") + number(point, "height") / 2;
        return points.map((point) => d0 + ((y(point) - y0) / (y1 - y0)) * (d1 - d0));
        """,
        series,
    )


def cell_colours(driver):
    """`[steps][layers]` of the heat map's cells: the colour a little off their middle (there may be a cross in it)."""
    return driver.execute_script(
        """
        const canvas = document.querySelector("canvas.cells");
        const context = canvas.getContext("2d");
        const [columns, rows] = arguments;
        const range = (length) => Array.from({ length }, (_, i) => i);
        const at = (i, j) => {
          const [x, y] = [((j + 0.15) * canvas.width) / columns, ((i + 0.5) * canvas.height) / rows];
          return [...context.getImageData(x, y, 1, 1).data].slice(0, 3).join();
        };
        return range(rows).map((i) => range(columns).map((j) => at(i, j)));
        """,
        len(all_of(driver, "tbody tr")),
        len(STEPS),
    )


def colour(driver, name):
    text = driver.execute_script(
        "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0])", name
    )
    return ",".join(str(int(text.strip()[i : i + 2], 16)) for i in (1, 3, 5))


# --- what is drawn ------------------------------------------------------------------------------------------------


def test_the_tab_is_in_tensorboards_bar_and_opens_there(chrome, server):
    chrome.get(server.address)
    tab = until(lambda: [e for e in all_of(chrome, "[role=tab]") if e.text.upper() == "INIT AUDIT"])[0]
    tab.click()
    chromium.enter(chrome)
    assert len(all_of(chrome, ".card")) == 9


def test_the_worst_runs_come_first_with_their_verdict_in_words(page):
    driver = page()
    cards = [(card.get_attribute("data-run"), one(card, ".chip").text) for card in all_of(driver, ".card")]
    assert cards == [
        ("bad/initaudit", "BAD"),
        ("blocks/initaudit", "BAD"),
        ("deep/initaudit", "BAD"),
        ("nan/initaudit", "BAD"),
        ("blocks_well/initaudit", "HEALTHY"),
        ("evil <i>/initaudit", "HEALTHY"),
        ("good/initaudit", "HEALTHY"),
        ("two/initaudit", "HEALTHY"),
        ("void/initaudit", "HEALTHY"),
    ]
    assert shown(driver) == "bad"
    assert "each layer multiplies the gradient by" in one(driver, "[data-run='bad/initaudit'] .headline").text
    icons = {one(card, ".chip svg path").get_attribute("d") for card in all_of(driver, ".card")}
    assert len(icons) == 2  # told by the shape too


@pytest.mark.parametrize("run", ["bad", "good"])
def test_the_profile_shows_the_numbers_that_were_measured(page, logged, run):
    driver = page(choose(run))
    last = logged[1][run][-1]
    rows = [last[f"dense_{i}" if i else "dense"] for i in range(12)]
    activation = [math.log10(row.activation_rms) for row in rows]
    backward = [level for level, _ in Flow(last).gradient_levels().values()]
    assert len(backward) == 11  # the head has none
    pixel = 16 / 250  # decades
    np.testing.assert_allclose(drawn_decades(driver, "activation"), activation, atol=pixel)
    np.testing.assert_allclose(drawn_decades(driver, "backward"), backward, atol=pixel)
    assert backward[-1] == 0.0
    assert (backward[0] < -2) == (run == "bad")


def test_all_cards_have_the_same_axes(page):
    driver = page()
    until(lambda: len(all_of(driver, ".card svg.profile")) == 9)
    bands = {(b.get_attribute("y"), b.get_attribute("height")) for b in all_of(driver, ".card .profile .band")}
    assert len(bands) == 1


def test_the_band_is_that_of_the_report(page):
    driver = page(choose("bad"))
    heights = driver.execute_script(
        """
        const svg = document.querySelector(".run .profile");
        const ticks = [...svg.querySelectorAll("text.tick[data-decade]")];
        const y = (i) => Number(ticks.at(i).getAttribute("y")), decade = (i) => Number(ticks.at(i).dataset.decade);
        const pixels = (y(0) - y(-1)) / (decade(-1) - decade(0));
        const one = y(0) - 4 - (0 - decade(0)) * pixels;
        const band = svg.querySelector(".band"), top = Number(band.getAttribute("y"));
        return [top + Number(band.getAttribute("height")), top].map((end) => (one - end) / pixels);
        """
    )
    assert heights == pytest.approx(BAND, abs=0.01)


def test_the_heat_map_is_neutral_for_the_good_run_and_deep_at_the_input_of_the_bad_one(page, logged):
    driver = page(choose("good"))
    neutral = colour(driver, "--heat-neutral")
    assert {cell for row in cell_colours(driver) for cell in row[:-1]} == {neutral}
    cells = cell_colours(page(choose("bad")))
    snapshot = logged[1]["bad"][0]
    levels = [level for level, _ in Flow(snapshot).gradient_levels().values()]
    assert [cell == neutral for cell in cells[0][:-1]] == [abs(level) <= BAND[1] for level in levels]
    assert cells[0][0] != neutral
    assert cells[0][-1] == colour(driver, "--heat-missing")  # the head


def test_what_is_not_finite_has_a_cross_and_a_colour_of_its_own(page):
    driver = page(choose("nan"))
    strokes = driver.execute_script(
        "const paths = [...document.querySelectorAll('.run .profile-place path.cross')];"
        "return paths.map((path) => path.getAttribute('d').split('M').length - 1)"
    )
    assert strokes == [30, 30]  # one a layer, forward and backward
    cells = cell_colours(driver)
    assert set(cells[-1]) == {colour(driver, "--broken")}
    assert "non-finite" in text_of(driver, ".findings")
    assert "loss NaN" in head_text(driver)


def test_two_hundred_layers_are_drawn_and_the_table_starts_with_the_worst(page):
    driver = page(choose("deep"))
    points = one(driver, ".profile-place .curve.now.backward").get_attribute("d").count("L")
    assert points == 198  # between 199 rows: the head has no level
    rows = all_of(driver, "tbody tr")
    assert len(rows) == 100
    assert rows[0].get_attribute("data-row") == "dense"  # has the finding
    one(driver, ".more").click()
    assert len(all_of(driver, "tbody tr")) == 200


def test_two_layers_are_drawn(page, logged):
    driver = page(choose("two"))
    assert len(drawn_decades(driver, "activation")) == 2
    assert [row.get_attribute("data-row") for row in all_of(driver, "tbody tr")] == ["dense", "dense_1"]


def test_a_model_without_layers_is_no_fault(page):
    driver = page()
    one(driver, "[data-run='void/initaudit']").click()
    until(lambda: shown(driver) == "void")
    assert "no layers to draw" in text_of(driver, ".run")


def test_the_table_has_the_numbers_of_the_last_audit(page, logged):
    driver = page(choose("bad"))
    cells = [cell.text for cell in all_of(driver, "tr[data-row=dense_3] td.number")]
    row = logged[1]["bad"][-1]["dense_3"]
    value = [number(text) for text in cells]
    assert value[0] == 3
    assert value[1:] == pytest.approx([row.activation_rms, row.gradient_rms, row.update_log10], rel=0.05)


def in_module(driver, name, body, *arguments):
    """The value that `body` returns, which may use `module`, the module of that name of the page."""
    return driver.execute_async_script(
        f"""
        const [...given] = arguments, done = given.pop();
        const url = performance.getEntriesByType("resource").find((entry) => entry.name.endsWith("/{name}.js")).name;
        import(url).then((module) => {{ {body} }}).then(done, (error) => done(String(error)));
        """,
        *arguments,
    )


def in_model(driver, body, *arguments):
    """The value that `body` returns, which may use `model`, the data model of the page."""
    return in_module(driver, "model", f"const model = module; {body}", *arguments)


def numbers():
    """Numbers of every size, and those at which two ways of rounding part: ties, and ends of a number of digits."""
    rng = np.random.default_rng(0)
    edges = [m * 10.0**e for e in range(-12, 13) for m in (1, 1.05, 1.5, 9.949, 9.95, 9.951, 9.995, 9.9951, 9.99999)]
    ties = [k / 2**n for n in range(1, 9) for k in range(1, 300, 2)] + [float(500 * k) for k in range(1, 400)]
    single = rng.lognormal(0, 20, 3000).astype(np.float32).astype(float)  # as the log has them
    found = [
        0.0,
        5e-324,
        1e300,
        0.01,
        0.00999999977,
        0.00996,
        0.00994,
        9999.5,
        1e4,
        9.99e307,
        1.7976931348623157e308,
        *edges,
        *ties,
        *single,
        *rng.lognormal(0, 5, 3000),
    ]
    return [*found, *(-value for value in found)]


def test_the_page_writes_a_number_as_python_does(page):
    driver, given = page(), numbers()
    for digits in (2, 3):
        texts = in_module(driver, "format", "return given[0].map((v) => module.num(v, given[1]))", given, digits)
        assert texts == [num(value, digits) for value in given]
    shares = [share for share in given if 0 <= share <= 1]
    assert len(shares) > 1000
    assert in_module(driver, "format", "return given[0].map(module.percent)", shares) == [percent(v) for v in shares]
    counts = [0, 1, 2, 999, 1000, 1234567]
    texts = in_module(driver, "format", "return given[0].map((n) => module.count(n, 'layer'))", counts)
    assert texts == [count(n, "layer") for n in counts]
    assert (
        in_module(driver, "format", "return [NaN, Infinity, -Infinity].map((v) => module.num(v))")
        == [num(math.nan)] * 3
    )
    assert in_module(driver, "format", "return module.DIGITS") == DIGITS
    rounded = in_module(driver, "format", "return given[0].map((v) => String(Number(v.toPrecision(2))))", given)
    assert rounded != [num(value) for value in given]  # the comparison can fail


@pytest.mark.parametrize(
    ("value", "sent", "drawn"),
    [
        (1e-7, -3.5, -3.5),  # as the server says, whatever the measured value
        (1e-3, None, None),  # a head has no level
        (0.0, -44.0, "zero"),
        (0.0, None, None),
        (None, -3.5, -3.5),
    ],
)
def test_the_gradient_is_drawn_at_the_level_that_the_server_sends(page, value, sent, drawn):
    body = """
        const columns = { backward_rms: given[0], backward_level: given[1], backward_nonfinite: 0 };
        const at = (name) => new Float32Array([columns[name] ?? NaN]);
        const made = model.curve({ rows: [0], at }, model.statistic("backward"), 0);
        return made.level[0] === -Infinity ? "zero" : Number.isNaN(made.level[0]) ? null : made.level[0];
    """
    assert in_model(page(), body, value, sent) == drawn


def test_the_model_of_the_page(page):
    driver = page()
    band = "return given[1].map((level) => model.deviation(model.statistic(given[0]), level))"
    assert in_model(driver, band, "activation", [-3, -2, 0, 2, 5]) == [-1, 0, 0, 0, 3]
    for name, column in (("dead", "activation_dead"), ("collapsed", "activation_spread"), ("update", "update_log10")):
        quantity = next(one for shown in QUANTITIES.values() for one in shown if one.column == column)
        assert quantity.usual is not None
        low, high = quantity.usual
        below, *inside, above = in_model(driver, band, name, [low - 0.1, low, high, high + 0.1])
        assert inside == [0, 0]
        assert below < 0 < above
    spread = "return model.spread(...given)"
    assert in_model(driver, spread, 3, 9) == [0, 1, 2]
    assert in_model(driver, spread, 101, 3) == [0, 50, 100]
    runs = [
        {"label": "b10", "verdict": "healthy"},
        {"label": "b9", "verdict": "healthy"},
        {"label": "z", "verdict": "bad"},
        {"label": "y", "problem": "damaged", "verdict": None},
        {"label": "x", "verdict": None},
        {"label": "w", "verdict": "warning"},
    ]
    order = "return model.sortRuns(given[0]).map((run) => run.label)"
    assert in_model(driver, order, runs) == ["z", "w", "y", "x", "b9", "b10"]


# --- choosing -----------------------------------------------------------------------------------------------------


def test_a_click_on_a_card_shows_its_run_and_the_link_restores_it(page, chrome):
    driver = page()
    one(driver, "[data-run='good/initaudit']").click()
    until(lambda: shown(driver) == "good")
    driver.switch_to.default_content()
    link = driver.current_url
    assert "p.initaudit.run=good%2Finitaudit" in link
    driver.get("about:blank")
    driver.get(link)
    chromium.enter(driver)
    assert shown(driver) == "good"
    assert one(driver, "[data-run='good/initaudit']").get_attribute("aria-pressed") == "true"


def test_a_link_restores_statistic_step_layer_and_filter(page):
    view = (
        choose("bad")
        + "&p.initaudit.stat=activation&p.initaudit.step=2&p.initaudit.layer=dense_3&p.initaudit.filter=dense_1"
    )
    driver = page(view)
    assert driver.execute_script("return document.querySelector('.picture-head select').value") == "activation"
    assert "Findings at step 2" in text_of(driver, ".findings")
    assert text_of(driver, ".detail h3") == "dense_3"
    assert [row.get_attribute("data-row") for row in all_of(driver, "tbody tr")] == ["dense_1", "dense_10", "dense_11"]


def test_a_damaged_link_shows_the_page_all_the_same(page):
    driver = page("&p.initaudit.run=gone&p.initaudit.step=x&p.initaudit.stat=nothing&p.initaudit.layer=gone")
    assert shown(driver) == "bad"


def test_the_statistic_of_the_heat_map_can_be_chosen(page):
    driver = page(choose("bad"))
    before = cell_colours(driver)
    options = {option.text: option for option in all_of(driver, ".picture-head select option")}
    assert len(options) >= 8
    options["Activation rms"].click()
    until(lambda: cell_colours(driver) != before)
    neutral = colour(driver, "--heat-neutral")
    after = cell_colours(driver)
    assert after[0][0] == neutral  # the signal is still there at the input
    assert after[0][10] != neutral


def test_a_layer_opens_its_histograms_and_its_update_ratio(page):
    driver = page(choose("good"))
    one(driver, "tr[data-row=dense_3] button.link").click()
    until(lambda: len(all_of(driver, ".detail .ridge.now")) == 3)
    assert len(all_of(driver, ".detail .ridge")) == 3 * len(STEPS)
    assert len(all_of(driver, ".detail .points.update circle")) == len(STEPS)
    guide, band = one(driver, ".detail .guide"), one(driver, ".detail .band")
    top, height = float(band.get_attribute("y")), float(band.get_attribute("height"))
    low, high = in_model(driver, "return model.statistic('update').band")
    guide_height = (top + height - float(guide.get_attribute("y1"))) / height  # 0 at the band's low end, 1 at its high
    assert guide_height == pytest.approx((-3 - low) / (high - low))
    one(driver, ".detail .close").click()
    until(lambda: not all_of(driver, ".detail"))


def test_the_pointer_reads_out_what_is_under_it(page, logged):
    driver = page(choose("bad"))
    driver.execute_script(
        """
        const cells = document.querySelector("canvas.cells");
        const area = cells.getBoundingClientRect();
        const at = { clientX: area.left + (area.width * 3.5) / 12, clientY: area.top + (area.height * 1.5) / 6 };
        cells.dispatchEvent(new PointerEvent("pointermove", { ...at, bubbles: true }));
        """
    )
    text = one(driver, ".tip").text
    assert text.startswith("dense_3\nDense · step 1\n")
    value = number(text.split("Activation rms: ")[1].split("\n")[0])
    snapshot = logged[1]["bad"][1]
    assert value == pytest.approx(snapshot["dense_3"].activation_rms, rel=0.05)
    level, rms = text.split("Gradient over the last hidden layer's: ")[1].split("\n")[0].split(" (rms ")
    assert math.log10(number(level)) == pytest.approx(Flow(snapshot).gradient_levels()[4][0], abs=0.02)
    assert number(rms.rstrip(")")) == pytest.approx(snapshot["dense_3"].backward_rms, rel=0.05)


def test_everything_can_be_reached_from_the_keyboard(page):
    driver = page(choose("bad"))
    heat = one(driver, ".heatmap")
    heat.send_keys(Keys.ARROW_DOWN)  # the first key puts the cursor on the first layer, at the shown step
    heat.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert one(driver, ".tip").text.startswith("dense_2\nDense · step 10\n")
    heat.send_keys(Keys.ENTER)
    until(lambda: all_of(driver, ".detail"))
    assert text_of(driver, ".detail h3") == "dense_2"
    unreachable = driver.execute_script(
        "const all = [...document.querySelectorAll('.card, .sort, .copy, .close, .link')];"
        "return all.filter((element) => element.tabIndex < 0 || !element.matches('button')).length"
    )
    assert unreachable == 0
    card = one(driver, "[data-run='good/initaudit']")
    card.send_keys(Keys.ENTER)
    until(lambda: shown(driver) == "good")


def test_filter_and_order_of_the_table(page):
    driver = page(choose("bad"))
    box = one(driver, "input[aria-label='Filter layers']")
    box.send_keys("dense_1")
    assert [row.get_attribute("data-row") for row in all_of(driver, "tbody tr")] == ["dense_1", "dense_10", "dense_11"]
    box.send_keys("zzz")
    assert "No layer matches" in one(driver, ".table-box").text
    for _ in "zzz":
        box.send_keys(Keys.BACKSPACE)
    one(driver, ".col-activation button").click()
    numbers = [number(row.find_elements("css selector", "td.number")[1].text) for row in all_of(driver, "tbody tr")]
    assert numbers == sorted(numbers)
    one(driver, ".col-activation button").click()
    assert one(driver, ".col-activation").get_attribute("aria-sort") == "descending"


def test_the_remedy_can_be_copied(page, logged):
    driver = page(choose("bad"))
    button = one(driver, ".findings .copy")
    assert button.get_attribute("title") == findings_of(logged[1]["bad"][-1])[0].remedy
    button.click()
    until(lambda: button.text == "Copied")


# --- surroundings -------------------------------------------------------------------------------------------------


def test_markup_in_names_is_shown_as_text(page):
    driver = page(choose("evil <i>"))
    names = [row.get_attribute("data-row") for row in all_of(driver, "tbody tr")]
    assert names == EVIL
    paths = all_of(driver, "td.layer-name .path")
    assert [path.get_attribute("title") for path in paths] == EVIL
    assert [path.text for path in paths[:4]] == EVIL[:4]
    places = ":is(td, h2, h3, .card-head, .headline, .layer, .message)"
    assert all_of(driver, f"main {places} b, main img, main i:not(.swatch, .ramp), main script") == []
    assert shown(driver) == "evil <i>"
    one(driver, "tr:nth-child(2) button.link").click()
    until(lambda: text_of(driver, ".detail h3") == EVIL[1])
    until(lambda: len(all_of(driver, ".detail .ridge.now")) == 3)  # the name survives the way to the server


def test_dark_mode_is_tensorboards(page):
    driver = page(choose("bad"), dark=True)
    background = "return getComputedStyle(document.body).backgroundColor"
    dark = driver.execute_script(background)
    before = cell_colours(driver)
    driver.execute_script("parent.document.body.classList.remove('dark-mode')")
    until(lambda: driver.execute_script(background) != dark)
    until(lambda: cell_colours(driver) != before)  # the canvas is painted again
    light = driver.execute_script(background)
    brightness = [sum(int(c) for c in text[4:-1].split(",")[:3]) for text in (dark, light)]
    assert brightness[0] < 200 < 600 < brightness[1]


@pytest.mark.parametrize("width", [600, 1400, 2500])
def test_nothing_sticks_out_at_any_width(page, chrome, width):
    chrome.set_window_size(width, 1000)
    try:
        for run in ("deep", "evil <i>"):
            driver = page(choose(run))
            seen, whole = driver.execute_script(
                "return [document.documentElement.clientWidth, document.documentElement.scrollWidth]"
            )
            assert whole <= seen, run
            profile, cells = one(driver, ".run .profile .plot").rect, one(driver, "canvas.cells").rect
            assert profile["x"] == pytest.approx(cells["x"], abs=1)  # one x axis
            assert profile["width"] == pytest.approx(cells["width"], abs=1)
    finally:
        chrome.set_window_size(1400, 1000)


@pytest.fixture
def growing(tmp_path, chrome):
    """A TensorBoard on an empty folder, and the folder."""
    (tmp_path / "logs").mkdir()
    with tensorboard(tmp_path, tmp_path / "logs") as server:
        yield server, tmp_path / "logs"
        said = chromium.errors(chrome)
        chrome.get("about:blank")  # nobody asks a server that is gone
    assert said == []


def test_an_empty_log_says_how_to_fill_it_and_then_new_audits_appear(chrome, growing):
    server, folder = growing
    chromium.errors(chrome)
    chromium.open_tab(chrome, server.address)
    assert "InitAudit" in text_of(chrome, ".empty")
    writer = Writer(folder / "live" / "initaudit")
    first, second, third = Network(6, std=0.3).audits((0, 1, 2))
    writer.write(first, findings_of(first))
    until(lambda: all_of(chrome, ".run .heatmap"), 30)  # without a reload: it looks again by itself
    assert "step 0" in head_text(chrome)
    assert not all_of(chrome, ".empty")
    writer.write(second, findings_of(second))
    writer.write(third, findings_of(third))

    def reloaded():
        chrome.switch_to.default_content()
        one(chrome, "app-header-reload button, button[aria-label='Reload data'], button.reload-button").click()
        chromium.enter(chrome)
        return "step 2 (latest)" in head_text(chrome)

    until(reloaded, 30)
    assert text_of(chrome, ".heatmap").split()[:3] == ["0", "1", "2"]


def test_notes_come_last_in_a_colour_of_their_own_and_are_no_faults(chrome, growing):
    server, folder = growing
    (shot,) = Network(4).audits((0,))
    path = shot.layers[1].path
    fault = Finding("vanishing-signal", "warning", path, "The signal fades.")
    note = Finding(
        "duplicate-kernels", "note", path, "Two kernels are the same.", remedy="kernel_initializer = HeNormal()"
    )
    for name, found in {"both": [note, fault], "noted": [note]}.items():
        writer = Writer(folder / name / "initaudit")
        writer.write(shot, found)
        writer.close()
    server.runs(2)
    chromium.errors(chrome)
    chromium.open_tab(chrome, server.address, choose("both"))
    headlines = {card.get_attribute("data-run"): one(card, ".headline").text for card in all_of(chrome, ".card")}
    assert headlines == {"both/initaudit": "The signal fades.", "noted/initaudit": "Nothing found, 1 note."}
    assert [one(card, ".chip").text for card in all_of(chrome, ".card")] == ["WARNING", "HEALTHY"]
    assert text_of(chrome, ".findings h3") == "Findings at step 0"
    assert [element.get_attribute("class") for element in all_of(chrome, ".finding")] == [
        "finding warning",
        "finding note",
    ]
    edges = [element.value_of_css_property("border-left-color") for element in all_of(chrome, ".finding")]
    assert [edge.replace(" ", "") for edge in edges] == [
        f"rgba({colour(chrome, f'--{name}')},1)" for name in ("warning", "note")
    ]
    assert one(chrome, f"tr[data-row={path}]").get_attribute("class") == "warning"
    one(chrome, "[data-run='noted/initaudit']").click()
    until(lambda: shown(chrome) == "noted")
    assert text_of(chrome, ".findings h3") == "Notes at step 0"
    assert one(chrome, ".run-head .chip").text == "HEALTHY"
    assert "HeNormal" in text_of(chrome, ".finding.note pre")
    row = one(chrome, f"tr[data-row={path}]")
    assert row.get_attribute("class") == "note"
    unknown = in_module(chrome, "dom", "return module.icon('no such name').querySelector('path').getAttribute('d')")
    assert one(row, ".mark svg path").get_attribute("d") != unknown


def test_the_python_loader_and_a_path_prefix(chrome, tmp_path):
    snapshots = write(tmp_path / "logs" / "run", Network(12, std=0.6), tuple(range(15)))
    chromium.errors(chrome)
    with tensorboard(tmp_path, tmp_path / "logs", "--load_fast=false", prefix="/some/where") as server:
        server.runs(1)
        chromium.open_tab(chrome, server.address)
        until(lambda: "step 14 (latest)" in head_text(chrome))
        expected = [math.log10(snapshots[-1][f"dense_{i}" if i else "dense"].activation_rms) for i in range(12)]
        np.testing.assert_allclose(drawn_decades(chrome, "activation"), expected, atol=16 / 250)
        asked = chrome.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert asked
        assert all(name.startswith(server.address) for name in asked), json.dumps(asked)
        assert chromium.errors(chrome) == []
        chrome.get("about:blank")
