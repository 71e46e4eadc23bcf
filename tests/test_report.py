"""The report in a real headless browser: it loads without an error, the plot is drawn, the slider moves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from browsers import opened
from conftest import photo

from live.command import run
from live.errors import InputError
from testing import bdrate, report
from testing.evaluate import evaluate
from testing.measure import Evaluation, decode_file
from testing.results import REFERENCES


@pytest.fixture
def made(tmp_path: Path, small_live: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data, out = tmp_path / "set", tmp_path / "out"
    data.mkdir()
    photo(96, 64).save(data / "a.png")
    photo(96, 64, 1).save(data / "b <script>.png")
    monkeypatch.setattr(Evaluation, "_decode", lambda self, job, path: decode_file(job.codec, job.setting, path))
    evaluate(data, ["live_plus", "jpeg"], out, ["psnr", "dists"], ["original", "autoencoder"])
    assert report.main(["--out", str(out), "--data", str(data)]) == 0
    return out / "report.html"


def test_it_is_one_file_that_needs_no_network(made):
    text = made.read_text()
    assert "__DATA__" not in text and "__PLOTLY__" not in text
    assert "<script src" not in text and "<link" not in text
    # Two pictures, two settings of ours; original, ours and JPEG at the nearest size.
    assert text.count('"caption":') == 2 * 2 * 3
    for reference in ("original", "autoencoder"):
        table = text.split(f"id='bd-{reference}'>")[1].split("</table>")[0]
        assert "JPEG 4:2:0" in table and "DISTS" in table


def test_fid_stands_in_it_where_it_was_measured(made, capsys):
    common = ["--out", str(made.parent), "--data", str(made.parent.parent / "set")]
    assert "FID" not in made.read_text()
    row = {
        "codec": "jpeg",
        "setting": 2.0,
        "bpp": 0.25,
        "fid": 130.54,
        "kid": 0.0564,
        "kid_std": 0.001,
        "patches": 4152,
        "patch": 64,
    }
    (made.parent / "fid.jsonl").write_text(json.dumps(row) + "\n")
    assert report.main(common) == 0
    table = made.read_text().split("id='fid'>")[1].split("</table>")[0]
    assert "<td>JPEG 4:2:0</td><td>2</td><td>0.2500</td><td>130.5</td><td>56.4</td><td>4152 of 64 px</td>" in table
    (made.parent / "fid.jsonl").write_text('{"fid": 1}\n')
    capsys.readouterr()
    assert run(lambda: report.main(common), "") == 2
    assert "fid.jsonl is not what" in (error := capsys.readouterr().err) and error.count("\n") == 1


def test_a_folder_without_the_photos_is_refused_at_once(made, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "view", lambda *_: pytest.fail("began its work"))
    (tmp_path / "other").mkdir()
    for folder in ("other", "nowhere"):
        with pytest.raises(InputError, match=r"does not hold a\.png"):
            report.main(["--out", str(made.parent), "--data", str(tmp_path / folder)])


def test_refusals_are_one_line(made, capsys):
    common = ["--out", str(made.parent), "--data", str(made.parent.parent / "set")]
    (made.parent / "files" / "jpeg" / "a.png_q2.jpg").unlink()
    capsys.readouterr()
    for arguments, word in (
        (common, "a.png_q2.jpg is gone"),
        ([*common, "--pictures", "0"], "--pictures"),
        ([*common, "--ours", "webp"], "no points of webp; they hold live_plus, jpeg"),
        ([*common, "--ours", "nothing"], "unknown codec nothing"),
        ([*common, "--dataset", "other"], "no dataset other; they hold set"),
        (["--out", str(made.parent.parent), *common[2:]], "no results at"),
    ):
        assert run(lambda arguments=arguments: report.main(arguments)) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1


def test_other_folders_of_checkpoints_stand_beside(tmp_path, small_models, small_live, monkeypatch):
    """Two sweeps in one report: files of either decode by its own checkpoints."""
    data, out, sweep = tmp_path / "set", tmp_path / "out", tmp_path / "sweep"
    data.mkdir()
    photo(96, 64).save(data / "a.png")
    shutil.copytree(small_models, sweep)
    monkeypatch.setattr(Evaluation, "_decode", lambda self, job, path: decode_file(job.codec, job.setting, path))
    evaluate(data, ["live_plus", str(sweep), "jpeg"], out, ["psnr"], ["original"])
    assert report.main(["--out", str(out), "--data", str(data), "--ours", f"{sweep},live_plus,jpeg"]) == 0
    with pytest.raises(
        InputError, match="the results hold sweep; give its folder of checkpoints too: --ours live_plus,"
    ):
        report.main(["--out", str(out), "--data", str(data)])
    for test in ("sweep", str(sweep)):
        assert (
            bdrate.main(["--points", str(out / "points.csv"), "--metric", "psnr", "--anchor", "jpeg", "--test", test])
            == 0
        )
    text = (out / "report.html").read_text()
    assert '"ours": "sweep"' in text and text.count('"caption":') == 2 * 4


def test_means_are_over_the_pictures_of_all_codecs(tmp_path, small_live):
    """A peer that coded one of two pictures is not drawn beside means of both."""
    data, out = tmp_path / "set", tmp_path / "out"
    data.mkdir()
    for seed in (0, 1):
        photo(96, 64, seed).save(data / f"{seed}.png")
    evaluate(data, ["jpeg"], out, ["psnr"], ["original"])
    points = evaluate(data, ["webp"], out, ["psnr"], ["original"], limit=1)
    means = report.means(points)
    first = points[(points["picture"] == "0.png") & (points["codec"] == "jpeg")]
    assert set(means["pictures"]) == {1} and len(means) == 6 + 5
    assert sorted(means.loc[means["codec"] == "jpeg", "psnr"]) == pytest.approx(sorted(first["psnr"]))


def drawn(browser, reference: str, metric: str) -> str:
    """Choose a reference and a metric; the path of our curve."""
    for select, value in (("reference", reference), ("metric", metric)):
        browser.execute_script(f"$('{select}').value = '{value}'; $('{select}').dispatchEvent(new Event('change'))")
    assert browser.execute_script("return $('plot').data.length") == 2
    return browser.execute_script("return JSON.stringify($('plot').data[0].y)")


def test_it_works_in_a_browser(made):
    By = pytest.importorskip("selenium.webdriver.common.by").By
    with opened(made) as browser:
        assert len(browser.find_elements(By.CSS_SELECTOR, "#plot .scatterlayer .trace")) == 2
        heights = {drawn(browser, reference, metric) for reference in REFERENCES for metric in ("psnr", "dists")}
        assert len(heights) == 4, "each reference and metric has curves of its own"
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
