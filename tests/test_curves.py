"""The figures: files are made, hold what they should and refuse to be empty."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from conftest import photo
from PIL import Image

from live.command import run
from live.errors import InputError
from testing import curves
from testing.curves import Panel, rd_plot, side_by_side
from testing.results import COLUMNS, load_published


def points(codecs: list[str]) -> pd.DataFrame:
    rows = [
        {
            "dataset": "set", "picture": "a.png", "codec": codec, "setting": setting, "reference": "original",
            "bpp": 0.1 * 2**setting, "psnr": 25.0 + 2 * setting + place, "lpips_alex": 0.4 / (1 + setting),
        }
        for place, codec in enumerate(codecs)
        for setting in range(4)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.mark.parametrize("log_rate", [True, False])
def test_rd_plot_draws_every_codec(tmp_path, log_rate):
    """Curves that end at one place, known codecs and unknown ones."""
    path = tmp_path / "rd.png"
    rd_plot(points(["live_plus", "jpeg", "webp", "mine"]), ["psnr", "lpips_alex"], path, log_rate=log_rate)
    with Image.open(path) as figure:
        assert figure.width > 1500 and figure.height > 500
        colours = {colour for _, colour in figure.convert("RGB").getcolors(1 << 24)}
    assert {(0xD1, 0x49, 0x5B), (0x7F, 0x7F, 0x7F), (0x2E, 0x7F, 0xB8), (0xD9, 0x7B, 0xA6)} <= colours


def test_labels_stand_apart(tmp_path, monkeypatch):
    boxes = []

    def close(figure):
        figure.canvas.draw()
        boxes.extend(text.get_window_extent() for text in figure.axes[0].texts)

    monkeypatch.setattr(curves.plt, "close", close)
    rd_plot(points(["jpeg", "webp", "avif", "heif", "vvc"]), ["lpips_alex"], tmp_path / "rd.png")
    edges = sorted((box.y0, box.y1) for box in boxes)
    assert len(edges) == 5
    assert all(below[1] <= above[0] for below, above in itertools.pairwise(edges))


def test_rd_plot_refuses_what_was_not_measured(tmp_path):
    with pytest.raises(InputError, match="no points"):
        rd_plot(points(["jpeg"]), ["psnr"], tmp_path / "rd.png", reference="autoencoder")
    with pytest.raises(InputError, match="no dists"):
        rd_plot(points(["jpeg"]), ["dists"], tmp_path / "rd.png")


def test_curves_are_drawn_over_the_same_pictures(tmp_path, monkeypatch):
    """JPEG has a second picture, WebP not yet: both curves are of the first."""
    titles, close = [], curves.plt.close
    monkeypatch.setattr(curves.plt, "close", lambda figure: (titles.append(figure.get_suptitle()), close(figure)))
    both = points(["jpeg", "webp"])
    more = both[both["codec"] == "jpeg"].assign(picture="b.png")
    rd_plot(pd.concat([both, more]), ["psnr"], tmp_path / "rd.png")
    assert titles == ["set, 1 picture, against the original"]


def test_the_command(tmp_path, capsys):
    table, out = tmp_path / "points.csv", tmp_path / "rd.svg"
    measured = points(["jpeg"]).assign(width=100, height=100, bytes=10)
    pd.concat([measured, measured.assign(dataset="other", codec="webp")]).to_csv(table, index=False)
    common = ["--points", str(table), "--metrics", "psnr"]
    assert curves.main([*common, "--dataset", "other", "--out", str(out)]) == 0
    drawn = out.read_text()
    assert curves.COLOURS["webp"] in drawn and curves.COLOURS["jpeg"] not in drawn
    capsys.readouterr()
    for arguments, word in (
        ([*common, "--out", str(out)], "several datasets (set, other); choose one with --dataset"),
        ([*common, "--dataset", "none", "--out", str(out)], "no dataset none"),
        ([*common, "--dataset", "set", "--out", str(tmp_path / "no" / "rd.svg")], "does not exist"),
        (["--points", str(tmp_path / "no.csv"), "--out", str(out)], "no results at"),
        ([*common[:2], "--metrics", ",", "--out", str(out)], "at least one metric"),
    ):
        assert run(lambda arguments=arguments: curves.main(arguments)) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1


def test_side_by_side_shows_the_middle_of_each_picture(tmp_path):
    path = tmp_path / "side_by_side.png"
    left = Image.new("RGB", (64, 64), "red")
    left.paste((0, 128, 0), (16, 16, 48, 48))
    side_by_side([[Panel(left, "a\n10 bytes"), Panel(photo(64, 64), "b\n20 bytes")]], path, crop=(32, 32))
    with Image.open(path) as figure:
        pixels = np.asarray(figure.convert("RGB")).reshape(-1, 3)
    assert (pixels == (0, 128, 0)).all(1).sum() > 1000
    assert not (pixels == (255, 0, 0)).all(1).any(), "what lies outside the crop is not shown"


def test_side_by_side_takes_small_pictures_and_refuses_none(tmp_path):
    side_by_side([[Panel(photo(20, 50), "a")], [Panel(photo(50, 20), "b")] * 2], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
    with pytest.raises(InputError, match="no pictures"):
        side_by_side([], tmp_path / "y.png")


def test_a_figure_of_unknown_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="no figure format is known for"):
        rd_plot(points(["live_plus"]), ["psnr"], tmp_path / "rd.xyz")
    assert not list(tmp_path.iterdir())


def test_published_figures_are_drawn_dashed_where_their_reference_is(tmp_path, monkeypatch):
    drawn, close = [], curves.plt.close
    monkeypatch.setattr(curves.plt, "close", lambda figure: (drawn.append(figure.axes[0]), close(figure)))
    rows = [("Other", "original", 0.1 * step, 24 + step) for step in (1, 3)] + [("Else", "autoencoder", 0.2, 30)]
    columns = ["name", "reference", "bpp", "psnr"]
    (tmp_path / "published.csv").write_text(pd.DataFrame(rows, columns=columns).assign(source="x").to_csv(index=False))
    path = tmp_path / "rd.svg"
    rd_plot(points(["jpeg"]), ["psnr"], path, published=load_published(tmp_path / "published.csv"))
    assert {text.get_text() for text in drawn[0].texts} == {"JPEG 4:2:0", "Other"}
    assert drawn[0].figure.get_suptitle().endswith("dashed: as published")
    assert [line.get_linestyle() for line in drawn[0].lines] == ["-", "--"]
    first = path.read_bytes()
    rd_plot(points(["jpeg"]), ["psnr"], path, published=load_published(tmp_path / "published.csv"))
    assert path.read_bytes() == first, "no date, no chance"
    (tmp_path / "published.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="not a table of published figures"):
        load_published(tmp_path / "published.csv")
