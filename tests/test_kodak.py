"""Fetching Kodak: hashes, copying, repair, and what is said when there is no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import requests

from kodak import fetch as kodak
from live.command import run
from live.errors import InputError
from live.registry import sha256


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A source folder of 24 stand-ins, whose hashes are the expected ones."""
    source = tmp_path / "source"
    source.mkdir()
    for name in kodak.SHA256:
        (source / name).write_bytes(name.encode() * 100)
    monkeypatch.setattr(kodak, "SHA256", {name: sha256(source / name) for name in kodak.SHA256})
    return source


def test_table_names_the_24_photos():
    assert list(kodak.SHA256) == [f"kodim{index:02d}.png" for index in range(1, 25)]
    assert len(set(kodak.SHA256.values())) == 24
    assert all(len(value) == 64 and int(value, 16) for value in kodak.SHA256.values())


@pytest.mark.skipif(not os.environ.get("LIVE_KODAK"), reason="needs LIVE_KODAK")
def test_table_fits_the_real_photos():
    folder = kodak.kodak_dir()
    assert {name: sha256(folder / name) for name in kodak.SHA256} == kodak.SHA256


def test_copies_skips_and_repairs(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert kodak.main(["--out", str(out), "--from", str(photos)]) == 0
    assert "24 photos" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == list(kodak.SHA256)
    kept = (out / "kodim01.png").stat().st_mtime_ns
    (out / "kodim02.png").write_bytes(b"half")
    (out / "kodim03.png").unlink()
    assert kodak.fetch(out, photos) == ["kodim02.png", "kodim03.png"]
    assert (out / "kodim02.png").read_bytes() == (photos / "kodim02.png").read_bytes()
    assert (out / "kodim01.png").stat().st_mtime_ns == kept
    assert kodak.fetch(out, tmp_path / "nowhere") == []


def test_wrong_or_missing_sources_are_refused(photos, tmp_path, capsys):
    (photos / "kodim05.png").write_bytes(b"a resaved copy")
    assert run(lambda: kodak.main(["--out", str(tmp_path / "out"), "--from", str(photos)])) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("live: ")
    assert "kodim05.png is not the original" in error
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert run(lambda: kodak.main(["--out", str(tmp_path / "other"), "--from", str(tmp_path / "nowhere")])) == 2
    assert "kodim01.png does not exist" in capsys.readouterr().err


def test_a_file_in_the_way_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(lambda: kodak.main(["--out", str(tmp_path / "file")])) == 2
    assert "cannot make the folder" in capsys.readouterr().err


def serve(monkeypatch, answer) -> list[str]:
    """Let pooch's downloader write ``answer(name)``; returns the addresses it is asked for."""
    asked: list[str] = []

    class Downloader:
        def __call__(self, url, output_file, pooch, check_only=False):
            asked.append(url)
            Path(output_file).write_bytes(answer(url.rsplit("/", 1)[1]))

    monkeypatch.setattr("pooch.core.choose_downloader", lambda *args, **options: Downloader())
    return asked


def test_downloads_and_resumes(photos, tmp_path, monkeypatch):
    asked = serve(monkeypatch, lambda name: (photos / name).read_bytes())
    out = tmp_path / "out"
    kodak.fetch(out, photos)
    (out / "kodim07.png").write_bytes(b"half")
    (out / "kodim09.png").unlink()
    assert kodak.fetch(out) == ["kodim07.png", "kodim09.png"]
    assert asked == [kodak.BASE_URL + name for name in ("kodim07.png", "kodim09.png")]
    assert kodak.BASE_URL.startswith("https://")
    assert (out / "kodim07.png").read_bytes() == (photos / "kodim07.png").read_bytes()


def test_a_changed_download_is_not_kept(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    serve(monkeypatch, lambda name: b"an error page")
    assert run(lambda: kodak.main(["--out", str(tmp_path / "out")])) == 2
    assert "kodim01.png is not the original photo" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_offline_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def offline(name):
        raise requests.exceptions.ConnectionError("no route")

    serve(monkeypatch, offline)
    assert run(lambda: kodak.main(["--out", str(tmp_path)])) == 2
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "live:" in line]
    assert len(lines) == 1
    assert "connect and run again, or copy from a folder with --from DIR" in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_kodak_dir(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE_KODAK", str(photos))
    assert kodak.kodak_dir() == photos
    monkeypatch.setenv("LIVE_KODAK", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="LIVE_KODAK"):
        kodak.kodak_dir()
    monkeypatch.delenv("LIVE_KODAK")
    monkeypatch.setattr(kodak, "HERE", photos)
    assert kodak.kodak_dir() == photos
    (photos / "kodim24.png").unlink()
    assert kodak.kodak_dir() is None
