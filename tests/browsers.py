"""A headless browser for the tests of reports; they are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def opened(page: Path, height: int = 1600) -> Iterator:
    """The page in a browser 1200 px wide; before and after the test its console must be empty, and a screenshot is left."""
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = f"window-size=1200,{height}"
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", window):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        browser.get(page.as_uri())
        assert browser.get_log("browser") == []
        yield browser
        assert browser.get_log("browser") == []
        browser.save_screenshot(str(page.with_suffix(".png")))
    finally:
        browser.quit()
