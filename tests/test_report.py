"""The report in a real headless browser: it loads without an error, the plot is drawn, the slider moves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import photo

from testing import report
from testing.evaluate import evaluate
from testing.measure import Evaluation, decode_file


@pytest.fixture
def made(tmp_path: Path, small_live: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data, out = tmp_path / "set", tmp_path / "out"
    data.mkdir()
    photo(96, 64).save(data / "a.png")
    photo(96, 64, 1).save(data / "b <script>.png")
    monkeypatch.setattr(Evaluation, "_decode", lambda self, codec, path: decode_file(codec, path))
    evaluate(data, ["live_plus", "jpeg"], out, ["psnr"], ["original"])
    assert report.main(["--out", str(out), "--data", str(data)]) == 0
    return out / "report.html"


def test_it_is_one_file_that_needs_no_network(made):
    text = made.read_text()
    assert "__DATA__" not in text and "__PLOTLY__" not in text
    assert "<script src" not in text and "<link" not in text
    # Two pictures, two settings of ours; original, ours and JPEG at the nearest size.
    assert text.count('"caption":') == 2 * 2 * 3
    assert "jpeg" in text and "<table id='bd'>" in text


def test_it_works_in_a_browser(made):
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "window-size=1200,1600"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        browser.get(made.as_uri())
        assert browser.get_log("browser") == []
        assert len(browser.find_elements(By.CSS_SELECTOR, "#plot .scatterlayer .trace")) == 2
        right = browser.find_element(By.ID, "right")
        before = right.value_of_css_property("clip-path")
        browser.execute_script("$('slide').value = 20; $('slide').dispatchEvent(new Event('input'))")
        after = right.value_of_css_property("clip-path")
        assert before != after and "20%" in after
        assert browser.execute_script("return $('left').naturalWidth") == 96
        caption = browser.find_element(By.ID, "rightCaption").text
        assert "bytes" in caption and "LIVE+" in caption
        browser.execute_script("$('shown').selectedIndex = 1; $('shown').dispatchEvent(new Event('change'))")
        assert browser.find_element(By.ID, "rightCaption").text != caption
        assert browser.get_log("browser") == []
        browser.save_screenshot(str(made.with_suffix(".png")))
    finally:
        browser.quit()
