"""The quickstart in miniature: on small models always, on the embedded checkpoints where they are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import photo
from PIL import Image

import live
from scripts import sample_photos
from testing import quickstart
from testing.measure import Evaluation, decode_file
from testing.results import load


def check(out: Path, qualities: list[int], ours: set[str]) -> None:
    files = sorted((out / "files" / "live_plus").glob("*.live"))
    assert len(files) == len(qualities)
    assert all(live.decompress(path.read_bytes()).size == (96, 64) for path in files)
    points = load(out / "points.csv")
    assert set(points["codec"]) == {*ours, "jpeg", "webp"}
    assert points["psnr"].notna().all() and points["lpips_alex"].notna().all()
    assert "LPIPS-Alex" in (out / "table.md").read_text()
    for name in ("rd.png", "side_by_side.png"):
        with Image.open(out / name) as figure:
            assert figure.width > 1000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    photo(96, 64).save(folder / "a.png")
    photo(96, 64, 1).save(folder / "b.png")
    return folder


def test_quickstart(data, tmp_path, small_live, capsys, monkeypatch):
    # That the decoder is a process of its own is tested with evaluate; here it would only take time.
    monkeypatch.setattr(Evaluation, "_decode", lambda self, job, path: decode_file(job.codec, job.setting, path))
    out = tmp_path / "out"
    out.mkdir()
    (out / "points.csv").write_text("of an earlier release\n")
    assert quickstart.main(["--out", str(out), "--data", str(data), "--limit", "1"]) == 0
    check(out, [1, 2], {"live_plus"})
    shown = capsys.readouterr().out
    assert "| live_plus" in shown and str(out / "files" / "live_plus") in shown and str(out / "rd.png") in shown


@pytest.mark.slow
@pytest.mark.skipif(not live.qualities(), reason="there are no embedded checkpoints")
def test_quickstart_with_the_embedded_checkpoints(data, tmp_path):
    quickstart.quickstart(tmp_path / "out", data, limit=1)
    check(tmp_path / "out", live.qualities(), {"live_plus", "glc"})


def test_photos_come_from_kodak_or_from_scikit_image(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE_KODAK", str(tmp_path))
    assert quickstart.photos(tmp_path / "out", None) == tmp_path
    monkeypatch.setattr(quickstart, "kodak_dir", lambda: None)
    folder = quickstart.photos(tmp_path / "out", None)
    sizes = {path.stem: Image.open(path).size for path in folder.iterdir()}
    assert sizes == {
        "astronaut": (512, 512), "chelsea": (451, 300), "coffee": (600, 400), "motorcycle": (741, 500),
        "rocket": (640, 427),
    }  # fmt: skip


def test_sample_tiles_are_enough_to_train_and_validate_on(tmp_path):
    from training.data import Photos, is_validation

    files = sorted(sample_photos.write(tmp_path / "tiles", cut=True).iterdir())
    held_out = [path for path in files if is_validation(path)]
    assert len(files) > 40 and 1 <= len(held_out) <= len(files) / 4
    photos = [{path.name.split("_")[0] for path in group} for group in (held_out, set(files) - set(held_out))]
    assert not photos[0] & photos[1]  # tiles of a photo overlap
    assert len(Photos(held_out, 256)) == len(held_out)
