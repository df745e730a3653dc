"""The main line and its blocks, what was found on card and picture, the trial, findings, names, two runs compared."""

import math
import re

import chromium
import pytest
import residual_network
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from test_page import all_of, choose, drawn_decades, in_module, number, one, shown, text_of, until

from keras_initaudit.diagnosis import RULES
from keras_initaudit.report import trials
from keras_initaudit.report.quantities import OF_THE_SIGNAL, QUANTITIES
from keras_initaudit.tensorboard import answers

WIDTHS = [800, 1000, 1500, 2500]


def strokes(driver, selector):
    """How many strokes the paths have that the selector names."""
    paths = [path.get_attribute("d") for path in all_of(driver, selector)]
    return sum(len(re.findall("M", path)) for path in paths)


# --- the main line ------------------------------------------------------------------------------------------------


def test_the_curve_is_the_stream_and_what_is_in_a_block_is_a_small_mark(page, logged):
    driver = page(choose("blocks"))
    stream = ["embedding", *(f"block{k}_sum" for k in range(4)), "head"]
    expected = [math.log10(logged[1]["blocks"][-1][path].activation_rms) for path in stream]
    assert drawn_decades(driver, "activation") == pytest.approx(expected, abs=16 / 250)
    assert strokes(driver, ".run .profile .inside.activation") == 12  # three rows in each of four blocks


def test_a_click_opens_a_block_a_second_one_a_layer_and_the_link_keeps_both(page):
    driver = page(choose("blocks"))
    profile = one(driver, ".run .profile")
    plot = one(driver, ".run .profile .plot").rect
    x = plot["x"] + plot["width"] * 2.5 / 6 - profile.rect["x"] - profile.rect["width"] / 2
    ActionChains(driver).move_to_element_with_offset(profile, round(x), 0).click().perform()
    until(lambda: all_of(driver, ".profile .opened"))
    assert len(drawn_decades(driver, "activation")) == 9  # three rows more
    assert text_of(driver, ".blocks option:checked") == "block1_sum"
    driver.switch_to.default_content()
    link = driver.current_url
    assert "p.initaudit.block=block1_sum" in link
    driver.get("about:blank")
    driver.get(link)
    chromium.enter(driver)
    assert len(drawn_decades(driver, "activation")) == 9
    heat = one(driver, ".heatmap")
    heat.send_keys(*[Keys.ARROW_RIGHT] * 4, Keys.ENTER)
    until(lambda: all_of(driver, ".detail"))
    assert text_of(driver, ".detail h3") == "block1_up"
    Select(one(driver, ".blocks")).select_by_index(0)
    until(lambda: not all_of(driver, ".profile .opened"))


def test_the_heat_map_shows_the_worst_row_of_a_closed_block(page):
    driver = page(choose("blocks"))
    assert (
        driver.execute_script("return document.querySelector('.picture-head select:not(.blocks)').value") == "saturated"
    )
    driver.execute_script(
        """
        const cells = document.querySelector("canvas.cells"), area = cells.getBoundingClientRect();
        const at = { clientX: area.left + (area.width * 1.5) / 6, clientY: area.top + area.height / 6 };
        cells.dispatchEvent(new PointerEvent("pointermove", { ...at, bubbles: true }));
        """
    )
    assert "saturated at the worst 93 %: block0_up" in one(driver, ".tip").text


# --- what was found -----------------------------------------------------------------------------------------------


def test_card_and_picture_show_the_quantity_of_the_worst_finding(page):
    driver = page(choose("blocks"))
    until(lambda: len(all_of(driver, ".card svg.profile")) == 9)
    assert strokes(driver, ".run .quantity .bar.bad") == 4  # the blocks
    assert strokes(driver, ".run .quantity .bar.good") == 0
    card = one(driver, "[data-run='blocks/initaudit']")
    assert card.find_elements("css selector", ".picture-name")[0].text.split() == ["Saturated", "93", "%"]
    assert len(card.find_elements("css selector", ".quantity .bar.bad")) == 1
    for healthy in ("blocks_well", "good"):
        assert not all_of(driver, f"[data-run='{healthy}/initaudit'] :is(.quantity, .trial, .fault-at)")
    # a fault of the signal or the gradient is in the profile: its rows are marked there
    assert all_of(driver, "[data-run='bad/initaudit'] .fault-at")
    assert not all_of(driver, "[data-run='bad/initaudit'] .quantity")


def test_each_rule_has_the_statistic_that_the_report_draws(page):
    body = """
        const columns = module.STATISTICS.map((one) => one.column);
        return given[0].map((rule) => [
          module.statistic(module.statisticFor([rule, "dead-units"])).column,
          module.quantitiesFor([rule, "dead-units"], columns).map((one) => one.column),
          module.quantitiesFor([rule], []).length]);
    """
    profile = {"activation_rms", "backward_rms"}
    rules = [*(rule.slug for rule in RULES), "of-a-later-version"]
    for rule, (heat, beside, without) in zip(rules, in_module(page(), "model", body, rules), strict=True):
        columns = [one.column for one in QUANTITIES.get(rule, ())]
        curve = "activation_rms" if rule in OF_THE_SIGNAL else "backward_rms"
        assert heat == (columns[0] if columns else curve), rule
        assert beside == [column for column in columns if column not in profile], rule
        assert without == 0
    body = "return [module.statisticFor([]), module.quantitiesFor([], ['activation_dead'])]"
    assert in_module(page(), "model", body) == ["backward", []]


def test_the_trial_stands_on_the_card_and_beside_the_finding(page):
    driver = page(choose("blocks"))
    assert one(driver, "[data-run='blocks/initaudit'] .trial .loss.remedied").get_attribute("d")
    figure = one(driver, ".finding .trial")
    words = figure.get_attribute("aria-label")
    assert "with the remedy" in words
    assert "as it is" in words
    points = driver.execute_script(
        """
        const svg = document.querySelector(".finding .trial");
        const [one, zero] = [...svg.querySelectorAll("text.tick")].map((text) => Number(text.getAttribute("y")) - 4);
        const points = svg.querySelector(".loss.remedied").getAttribute("d").split(/[ML]/).slice(1);
        return points.map((point) => (Number(point.split(" ")[1]) - zero) / (one - zero));
        """
    )
    assert points == pytest.approx(trials.left(residual_network.trial().remedied), abs=0.01)
    labels = [text.get_attribute("textContent") for text in figure.find_elements("css selector", "text")]
    assert labels[:3] == ["2.3", "0", "best constant answer"]
    assert "9 updates on this batch" in text_of(driver, ".finding .proof")


def test_one_fault_in_every_block_is_one_finding(page, logged):
    driver = page(choose("blocks"))
    finding = one(driver, ".finding")
    assert one(finding, ".basis").text == "measured"
    assert "at 4 places, first block0_up" in one(finding, "summary").text
    assert one(finding, ".reference a").get_attribute("href") == "https://proceedings.mlr.press/v9/glorot10a.html"
    one(finding, "summary").click()
    places = finding.find_elements("css selector", ".places button")
    assert [place.text for place in places] == [f"block{k}_up" for k in range(4)]
    places[2].click()
    until(lambda: text_of(driver, ".detail h3") == "block2_up")
    other = [
        {"rule": "a", "severity": "bad", "remedy": "r", "layer": "x1", "message": "x1 is 0.5"},
        {"rule": "a", "severity": "bad", "remedy": "r", "layer": "x2", "message": "x2 is 0.7"},
        {"rule": "a", "severity": "bad", "remedy": "other", "layer": "x3", "message": "x3 is 0.7"},
        {"rule": "a", "severity": "bad", "remedy": "r", "layer": "x4", "message": "x4 was 0.7"},
    ]
    groups = in_module(driver, "findings", "return module.grouped(given[0]).map((group) => group.length)", other)
    assert groups == [2, 1, 1]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_scrolls_sideways(page, chrome, width):
    chrome.set_window_size(width, 1000)
    try:
        for run in ("blocks", "evil <i>", "deep"):
            driver = page(choose(run))
            wide = driver.execute_script(
                """
                return [...document.querySelectorAll("*")].filter((element) =>
                  element.scrollWidth > element.clientWidth + 1 &&
                  ["auto", "scroll"].includes(getComputedStyle(element).overflowX)).map((element) => element.className);
                """
            )
            assert wide == [], run
    finally:
        chrome.set_window_size(1400, 1000)


def test_no_curve_is_drawn_over_the_words_for_the_bands(page):
    driver = page(choose("deep"))
    left = one(driver, ".run .profile .plot").rect["x"]
    zones = all_of(driver, ".run .profile .zone")
    assert [zone.text for zone in zones] == ["exploding", "healthy", "vanishing"]
    assert all(zone.rect["x"] + zone.rect["width"] < left for zone in zones)


# --- names --------------------------------------------------------------------------------------------------------


def test_the_names_are_those_that_the_server_has_cut(page, logged):
    paths = tuple(info.path for info in logged[1]["evil <i>"][0].layers)
    cut = answers.short_names(paths)
    driver = page(choose("evil <i>"))
    for selector, place in (("td.layer-name .path", "table"), (".heatmap .layer", "turned")):
        drawn = {each.get_attribute("title"): each.get_property("textContent") for each in all_of(driver, selector)}
        assert cut[place]
        assert drawn == {path: cut[place].get(i, path) for i, path in enumerate(paths) if path in drawn}
        assert {paths[i] for i in cut[place]} <= drawn.keys()


def test_whoever_copies_a_cut_name_gets_the_whole_path(page):
    driver = page(choose("evil <i>"))
    long = next(button for button in all_of(driver, "td.layer-name .path[data-path]"))
    path = long.get_attribute("data-path")
    assert long.get_attribute("title") == path
    assert long.text != path
    copied = driver.execute_script(
        """
        getSelection().selectAllChildren(arguments[0]);
        const options = { clipboardData: new DataTransfer(), bubbles: true, cancelable: true };
        const event = new ClipboardEvent("copy", options);
        arguments[0].dispatchEvent(event);
        return event.clipboardData.getData("text/plain");
        """,
        long,
    )
    assert copied == path


# --- two runs -----------------------------------------------------------------------------------------------------


def test_two_runs_are_laid_over_each_other_row_by_row(page, logged):
    driver = page(choose("blocks"))
    Select(one(driver, ".comparing select")).select_by_visible_text("blocks_well")
    until(lambda: all_of(driver, ".run .curve.other.activation"))
    assert not all_of(driver, ".run .curve.start")
    assert strokes(driver, ".run .quantity .bar.other") == 4
    (cell,) = driver.find_elements("css selector", "tr[data-row=block2_down] td.number:nth-of-type(5)")
    here, there = cell.text.split("\n")
    assert number(here) == pytest.approx(1e-4)
    assert number(there) == pytest.approx(0.5)
    one(driver, ".col-difference button").click()
    one(driver, ".col-difference button").click()
    far = [number(row.find_elements("css selector", "td.number")[4].text) for row in all_of(driver, "tbody tr")[:8]]
    assert far == pytest.approx([math.log10(0.5 / 1e-4)] * 8, abs=0.01)
    driver.switch_to.default_content()
    link = driver.current_url
    driver.get("about:blank")
    driver.get(link)
    chromium.enter(driver)
    assert shown(driver) == "blocks"
    assert all_of(driver, ".run .curve.other.activation")


def test_runs_of_other_layers_cannot_be_compared_and_the_page_says_so(page):
    driver = page(choose("blocks") + "&p.initaudit.with=good%2Finitaudit")
    assert "has other layers than" in text_of(driver, ".notice")
    assert not all_of(driver, ".run .curve.other")
    pairs = "return module.pairRows(...given)"
    assert in_module(driver, "compare", pairs, [{"path": "a"}, {"path": "b"}], [{"path": "b"}, {"path": "a"}]) == [1, 0]
    renamed = [[{"path": f"{name}{i}", "kind": "Dense"} for i in range(3)] for name in "ab"]
    assert in_module(driver, "compare", pairs, *renamed) == [0, 1, 2]
    renamed[1][0]["kind"] = "Conv2D"
    assert in_module(driver, "compare", pairs, *renamed) is None
