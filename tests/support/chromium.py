"""Debian's chromium, driven by selenium: started bare, and pointed at the tab inside TensorBoard's frame."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
NOISE = ("Multiple instances of Three.js", "software WebGL", "favicon", "font-roboto", "willReadFrequently")
"""What TensorBoard's own page leaves in the console (its fonts ignore a path prefix), and our reading of a canvas."""


def missing() -> str | None:
    """What is not there to run a browser with, or None."""
    try:
        import selenium  # noqa: F401  only whether it is there
    except ImportError:
        return "selenium is not installed"
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


def required() -> bool:
    """Whether a missing browser is a failure and no reason to skip."""
    return os.environ.get("REQUIRE_BROWSER") == "1"


@contextlib.contextmanager
def browser(width: int = 1400, height: int = 1000) -> Iterator[Any]:
    """A new browser with an empty profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = shutil.which("chromium")
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


def open_tab(driver: Any, address: str, view: str = "", dark: bool = False, wait: float = 20) -> None:
    """Opens the tab and steps into its frame, as soon as something is drawn there."""
    driver.switch_to.default_content()
    driver.get("about:blank")  # an address that differs in its last part alone loads nothing
    driver.get(f"{address}?darkMode={str(dark).lower()}#initaudit{view}")
    enter(driver, wait)


def enter(driver: Any, wait: float = 20) -> None:
    """Steps into the tab's frame, as soon as something is drawn there."""
    driver.switch_to.default_content()
    end = time.monotonic() + wait
    while time.monotonic() < end:
        frames = driver.find_elements("css selector", "iframe")
        if frames:
            driver.switch_to.frame(frames[0])
            if driver.find_elements("css selector", ".run .heatmap, .run .panels, .empty, .notice:not([hidden])"):
                return
            driver.switch_to.default_content()
        time.sleep(0.05)
    raise AssertionError(f"the tab drew nothing within {wait} s; console: {errors(driver)}")


def errors(driver: Any) -> list[str]:
    """What the console says and TensorBoard is not known to say itself."""
    said = [entry["message"] for entry in driver.get_log("browser")]
    return [text for text in said if not any(noise in text for noise in NOISE)]


def wait_for(driver: Any, selector: str, count: int, wait: float = 20) -> None:
    """Waits until at least so many elements are there."""
    end = time.monotonic() + wait
    while len(driver.find_elements("css selector", selector)) < count:
        if time.monotonic() > end:
            raise AssertionError(f"fewer than {count} of {selector!r} within {wait} s")
        time.sleep(0.05)
