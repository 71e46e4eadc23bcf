"""The report on clips in a real headless browser: frames of two codecs in step through time, with a divider."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from browsers import opened
from films import make_clip

from live.command import run
from testing import clip_report
from testing.clip_anchors import CLIP_ANCHORS
from testing.clips import ClipEvaluation, decode_clip, evaluate_clips


@pytest.fixture
def made(tmp_path: Path, small_live: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data, out = tmp_path / "set", tmp_path / "out"
    data.mkdir()
    make_clip(data / "a.mp4", size=(64, 48), count=6)
    make_clip(data / "b & c.mp4", size=(66, 48), count=6)
    monkeypatch.setattr(ClipEvaluation, "_decode", lambda self, codec, path, raw: decode_clip(codec, path, raw))
    monkeypatch.setitem(CLIP_ANCHORS, "x264_ld", replace(CLIP_ANCHORS["x264_ld"], settings=(45, 30)))
    evaluate_clips(data, ["live_plus", "x264_ld"], out, 6, 3)
    assert clip_report.main(["--out", str(out), "--data", str(data), "--ours", "live_plus"]) == 0
    return out / "clip_report.html"


def test_it_is_one_file_that_needs_no_network(made):
    text = made.read_text()
    assert "__DATA__" not in text and "__PLOTLY__" not in text and "__STYLE__" not in text
    assert "<script src" not in text and "<link" not in text
    # Two clips; original, ours and x264; every second of six frames.
    assert text.count('"caption":') == 2 * 3 and text.count("data:image/webp") == 2 * 3 * 3
    assert "x264 medium, low delay" in text.split("id='bd'>")[1].split("</table>")[0]


def test_refusals_are_one_line(made, capsys):
    common = ["--out", str(made.parent), "--data", str(made.parent.parent / "set")]
    capsys.readouterr()
    for arguments, word in (
        ([*common, "--ours", "vvc_ld"], "no clips of vvc_ld; they hold live_plus, x264_ld"),
        ([*common, "--ours", "live_plus", "--step", "0"], "--step"),
        ([*common, "--ours", "live_plus", "--dataset", "other"], "no dataset other"),
        ([*common[:2], "--data", str(made.parent), "--ours", "live_plus"], "does not hold"),
    ):
        assert run(lambda arguments=arguments: clip_report.main(arguments)) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1
    shutil.rmtree(made.parent / "files" / "x264_ld")
    assert run(lambda: clip_report.main([*common, "--ours", "live_plus"])) == 2
    assert "is gone" in capsys.readouterr().err


def test_it_works_in_a_browser(made):
    By = pytest.importorskip("selenium.webdriver.common.by").By
    with opened(made, 2400) as browser:

        def put(select: str, value: str, event: str = "change") -> None:
            script = "$(arguments[0]).value = arguments[1]; $(arguments[0]).dispatchEvent(new Event(arguments[2]))"
            browser.execute_script(script, select, value, event)

        def sources() -> tuple[str, str]:
            return tuple(browser.find_element(By.ID, side).get_attribute("src") for side in ("left", "right"))

        assert len(browser.find_elements(By.CSS_SELECTOR, "#plot .scatterlayer .trace")) == 2
        assert len(browser.find_elements(By.CSS_SELECTOR, "#over .scatterlayer .trace")) == 2
        put("shown", "b & c.mp4")
        assert browser.execute_script("return [$('left').naturalWidth, $('right').naturalWidth]") == [66, 66]
        put("rightChoice", "x264_ld")
        first = sources()
        put("time", "2", "input")
        later = sources()
        assert later[0] != first[0] and later[1] != first[1], "both sides go through time together"
        assert browser.find_element(By.ID, "number").text == "4 of 0 to 5"
        assert browser.execute_script("return $('over').layout.shapes[0].x0") == 4
        put("time", "0", "input")
        assert sources() == first
        browser.find_element(By.ID, "play").click()
        browser.execute_async_script("setTimeout(arguments[0], 400)")
        assert browser.execute_script("return timer !== null")
        browser.find_element(By.ID, "play").click()
        caption = browser.find_element(By.ID, "rightCaption").text
        assert "x264" in caption and "bytes" in caption and "flicker" in caption
        put("slide", "20", "input")
        assert "20%" in browser.find_element(By.ID, "right").value_of_css_property("clip-path")
        heights = set()
        for figure in ("psnr", "dists", "bytes"):
            put("figure", figure)
            heights.add(browser.execute_script("return JSON.stringify($('over').data[0].y)"))
        assert len(heights) == 3, "each figure has curves of its own"
