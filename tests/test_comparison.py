"""Crops at equal rate: the file of nearest size is found on each peer's dial, and the command draws what it says."""

from __future__ import annotations

import pytest
from conftest import photo
from PIL import Image

from live.command import run
from testing import comparison
from testing.anchors import ANCHORS


@pytest.mark.parametrize("peer", ["jpeg", "webp", "heif"])
def test_the_peer_of_nearest_size(peer):
    picture = photo(256, 192)
    for size in (3000, 9000):
        assert len(comparison.nearest_size(peer, picture, size)) == pytest.approx(size, rel=0.12)
    smallest = len(comparison.nearest_size(peer, picture, 1))
    assert smallest == len(ANCHORS[peer].encode(picture, comparison.DIALS[peer][0]))


def test_ours_has_the_nearest_rate_and_the_peers_its_size(small_live):
    picture = photo(256, 192)
    sizes = [len(comparison.codec_of("live_plus").encode(picture, quality)) for quality in (1, 2)]
    for size in sizes:
        files = comparison.files_at(picture, "live_plus", ["jpeg"], 8 * size / (256 * 192))
        assert len(files["live_plus"]) == size
        assert files["jpeg"] == comparison.nearest_size("jpeg", picture, size)


def test_every_peer_has_a_dial():
    assert set(comparison.DIALS) == set(ANCHORS)


def test_the_command(tmp_path, small_live, capsys):
    photo(96, 64).save(tmp_path / "a.png")
    out = tmp_path / "crops.jpg"
    common = ["--data", str(tmp_path), "--codecs", "live_plus,jpeg"]
    assert comparison.main([*common, "--out", str(out)]) == 0
    with Image.open(out) as figure:
        assert figure.format == "JPEG" and figure.width > 1000
    capsys.readouterr()
    for arguments, word in (
        ([*common, "--out", str(tmp_path / "x.gif")], "no figure format"),
        ([*common, "--out", str(out), "--bpp", "0"], "--bpp"),
        (["--data", str(tmp_path), "--codecs", "live_plus,nothing", "--out", str(out)], "unknown peer nothing"),
        ([*common, "--out", str(out), "--pictures", "b.png"], "b.png"),
        (["--data", str(tmp_path), "--codecs", ",", "--out", str(out)], "at least one codec"),
        ([*common, "--out", str(tmp_path / "no" / "x.jpg")], "does not exist"),
    ):
        assert run(lambda arguments=arguments: comparison.main(arguments)) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1
