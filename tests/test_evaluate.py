"""Evaluation through real files: rates of what lies on disk, references, going on after an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import photo
from PIL import Image

from live.command import run
from live.errors import InputError
from testing import evaluate as module
from testing.evaluate import evaluate
from testing.measure import Evaluation, coded_file
from testing.scoring import score


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one in a folder of its own."""
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    photo(65, 48, 1).save(folder / "a.png")
    photo(33, 17, 2).save(folder / "sub" / "b.png")
    return folder


def test_scores_are_undefined_below_their_smallest_size():
    figures = score(photo(40, 24), photo(40, 24, 1), ["psnr", "ms_ssim", "lpips_alex"])
    assert 5 < figures["psnr"] < 30 and figures["ms_ssim"] is None and figures["lpips_alex"] is None


def test_points_are_those_of_the_files_and_are_kept(folder, tmp_path, small_live, monkeypatch):
    out = tmp_path / "out"
    points = evaluate(folder, ["live_plus", "jpeg"], out, ["psnr"], ["original", "autoencoder"])
    assert len(points) == 2 * (2 + 6) * 2, "pictures, settings, references"
    assert set(points["dataset"]) == {"set"} and set(points["picture"]) == {"a.png", "sub/b.png"}
    for row in points.itertuples():
        path = coded_file(out, row.codec, row.picture, row.setting)
        assert path.stat().st_size == row.bytes and row.bpp == pytest.approx(8 * row.bytes / (row.width * row.height))
        assert row.encode_s > 0 and row.decode_s > 0
    row = points[(points["codec"] == "jpeg") & (points["setting"] == 45)].iloc[0]
    with Image.open(coded_file(out, "jpeg", "a.png", 45)) as decoded:
        expected = score(decoded.convert("RGB"), photo(65, 48, 1), ["psnr"])["psnr"]
    assert row["psnr"] == pytest.approx(expected)

    by_reference = points.pivot_table(index=["picture", "codec", "setting"], columns="reference", values="psnr")
    assert (by_reference["original"] != by_reference["autoencoder"]).all()

    # An interrupted run: the last two rows are lost, and they alone are measured again.
    table = out / "points.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-2]))
    jobs = []
    monkeypatch.setattr(Evaluation, "measure", lambda self, window, images: jobs.extend(window) or [])
    evaluate(folder, ["live_plus", "jpeg"], out, ["psnr"], ["original", "autoencoder"])
    assert [(job.name, job.codec, job.setting) for job in jobs] == [("sub/b.png", "jpeg", 45)]


def test_the_command_refuses_in_one_line(folder, tmp_path, capsys):
    common = ["--data", str(folder), "--out", str(tmp_path / "out")]
    for arguments, word in (
        ([*common, "--codecs", "nothing"], "unknown codec nothing"),
        ([*common, "--codecs", "jpeg", "--metrics", "ssim"], "unknown metric ssim"),
        ([*common, "--codecs", "jpeg", "--reference", "mine"], "unknown reference mine"),
        ([*common, "--limit", "0"], "--limit"),
        (["--data", str(tmp_path / "none"), "--out", str(tmp_path)], "not a folder"),
    ):
        assert run(lambda arguments=arguments: module.main(arguments)) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        evaluate(tmp_path / "empty", ["jpeg"], tmp_path / "out", ["psnr"], ["original"])
