"""The page with axe-core, by keyboard and to a screen reader: roles, names, headings, contrast, in both themes."""

import itertools

import accessibility
import chromium
import pytest
from selenium.webdriver.common.keys import Keys
from test_page import all_of, choose, head_text, one, text_of, until


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("view", ["", choose("good"), choose("blocks") + "&p.initaudit.layer=block1_down"])
def test_axe_finds_nothing(page, axe, dark, view):
    driver = page(view, dark=dark)
    chromium.wait_for(driver, ".card svg.profile", 9)
    assert accessibility.violations(driver, axe) == []


def test_axe_can_find_something(page, axe):
    driver = page(choose("good"))
    driver.execute_script(
        """
        document.querySelector(".run-head h2").style.color = "#bbb";
        document.querySelector(".heatmap").removeAttribute("aria-label");
        document.querySelector("main").append(document.createElement("button"));
        """
    )
    found = {text.split(":")[0] for text in accessibility.violations(driver, axe)}
    assert {"color-contrast", "button-name"} <= found
    driver.get("about:blank")


def test_headings_have_an_order_and_pictures_words(page):
    driver = page(choose("bad"))
    levels = [int(element.tag_name[1]) for element in all_of(driver, "h1, h2, h3, h4")]
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    pictures = all_of(driver, "svg[role=img], [role=img]")
    assert len(pictures) > 3
    assert all(picture.get_attribute("aria-label") for picture in pictures)


def test_everything_is_reached_by_tab_and_seen_when_it_is(page):
    driver = page(choose("blocks"))
    driver.execute_script("document.body.focus()")
    seen = set()
    for _ in range(60):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        kind, outline = driver.execute_script(
            "const e = document.activeElement; return [e.className || e.tagName, getComputedStyle(e).outlineStyle];"
        )
        seen.add(kind.split()[0])
        assert outline != "none" or kind == "BODY", kind
    assert {"card", "blocks", "heatmap", "SELECT", "link", "sort"} <= seen


def test_a_block_is_opened_by_keyboard(page):
    driver = page(choose("blocks"))
    heat = one(driver, ".heatmap")
    heat.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)
    until(lambda: all_of(driver, ".profile .opened"))
    assert "block" in text_of(driver, ".blocks option:checked")
    assert "step" in head_text(driver)


@pytest.mark.parametrize("dark", [False, True])
def test_words_in_pictures_have_contrast(page, dark):
    """axe-core leaves the text of SVG out."""
    driver = page(choose("blocks"), dark=dark)
    poor = driver.execute_script(
        """
        const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        const light = (colour) => {
          context.fillStyle = colour;
          context.fillRect(0, 0, 1, 1);
          const parts = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value / 255);
          const [r, g, b] = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const texts = [...document.querySelectorAll("svg text")];
        const behind = light(getComputedStyle(document.querySelector(".run")).backgroundColor);
        const ratio = (text) => {
          const [low, high] = [light(getComputedStyle(text).fill), behind].sort((a, b) => a - b);
          return (high + 0.05) / (low + 0.05);
        };
        return [texts.length, texts.filter((text) => ratio(text) < 4.5).map((text) => text.textContent)];
        """
    )
    assert poor[0] > 10
    assert poor[1] == []
