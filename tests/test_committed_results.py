"""The committed results: the README quotes them, and our anchors lie where others measured them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from live.checkpoints import embedded_checkpoints
from testing import aims, figures
from testing.bdrate import matrix
from testing.results import load, load_published, mean_per_setting

PUBLISHED = {
    "jpeg": [(0.236, 25.4), (0.333, 26.9), (0.497, 28.7), (0.751, 30.6)],
    "webp": [(0.176, 26.6), (0.247, 27.8), (0.368, 29.3), (0.533, 31.0)],
    "avif420": [(0.078, 25.5), (0.191, 28.2), (0.306, 30.0), (0.561, 32.8)],
}
"""(bpp, PSNR in dB) over kodim01 to kodim08, measured apart from this code, files against the original photos.

The AVIF files are 4:2:0.
"""


@pytest.fixture(scope="module")
def points():
    return load(figures.POINTS)


def test_the_bd_rates_are_those_of_the_points(points):
    committed = pd.read_csv(figures.MATRIX)
    fresh = matrix(points)
    assert len(fresh) > 100
    merged = fresh.merge(committed, on=["reference", "metric", "anchor", "test"], suffixes=("", "_committed"))
    assert len(merged) == len(fresh)
    assert np.allclose(merged["bd_rate"].astype(float), merged["bd_rate_committed"], atol=1e-4, equal_nan=True)


def test_what_integers_cost_was_measured_of_the_embedded_weights():
    embedded = [checkpoint.card["identity"] for checkpoint in embedded_checkpoints()]
    for row in json.loads((figures.RESULTS / "exactness.json").read_text())["rows"]:
        assert any(identity.startswith(row["checkpoint"]) for identity in embedded), row


def test_photos_timed_by_every_codec_alone_are_compared():
    points = pd.DataFrame({"codec": list("aabbb"), "picture": list("xyxyz"), "encode_s": [1.0, None, 1.0, 2.0, 3.0]})
    assert figures.timed_alike(points)["picture"].tolist() == ["x", "x"]


def test_what_is_quoted_from_others_is_drawn_with_its_source():
    published = load_published(figures.OTHERS)
    assert published["source"].str.len().min() > 10 and set(published["reference"]) == {"original", "autoencoder"}


def test_pictures_for_the_readme_are_small():
    assert all(path.stat().st_size < 1_000_000 for path in figures.ASSETS.iterdir())


def test_the_readme_is_up_to_date():
    text = figures.README.read_text()
    assert figures.replaced(text) == text, "run python -m testing.figures"


def test_every_picture_was_measured_at_every_setting(points):
    counts = points.groupby(["codec", "setting", "reference"])["picture"].nunique()
    assert (counts == 24).all()
    assert {"live_plus", "jpeg444", "heif", "avif", "jxl", "vvc", *PUBLISHED} <= set(points["codec"])
    against_the_original = points[points["reference"] == "original"]
    assert against_the_original[["psnr", "ms_ssim", "lpips_alex", "lpips_alex_shifted"]].notna().all(axis=None)
    assert np.allclose(points["bpp"], 8 * points["bytes"] / (points["width"] * points["height"]), rtol=1e-9)


@pytest.mark.parametrize(
    ("codec", "bpp", "psnr"), [(codec, *point) for codec, curve in PUBLISHED.items() for point in curve]
)
def test_anchors_lie_on_published_curves(points, codec, bpp, psnr):
    first = points[points["picture"].isin([f"kodim{number:02d}.png" for number in range(1, 9)])]
    curve = mean_per_setting(first[(first["codec"] == codec) & (first["reference"] == "original")])
    assert figures.at_rate(curve, "psnr", bpp) == pytest.approx(psnr, abs=0.3)


def test_at_a_quarter_bit_ours_is_nearer_to_the_photo_than_webp_and_heif(points):
    means = mean_per_setting(points[points["reference"] == "original"])
    at = {codec: figures.at_rate(curve, "lpips_alex", 0.25) for codec, curve in means.groupby("codec")}
    assert at["live_plus"] < min(at["webp"], at["heif"])


def test_aims_of_refined_files_and_of_what_is_out_of_range():
    """A codec's refined files stand below its own; where curves do not meet, nothing is called reached."""
    means = pd.concat(
        pd.DataFrame({"codec": name, "bpp": [0.02, 0.2], "dists": dists, "lpips_alex": dists, "psnr": [20.0, 30.0]})
        for name, dists in (
            ("live_plus", [0.3, 0.2]),
            ("live_plus_refined", [0.2, 0.1]),
            ("glc", [0.9, 0.8]),
            ("vvc", [0.3, 0.1]),
        )
    )
    rows = [line.split("|") for line in aims.table(means, figures.ROOT).splitlines()]
    stated = {what.strip(): (measured.strip(), word.strip()) for _, what, _, measured, word, _ in rows}
    assert stated["`live_plus_refined`: DISTS at 0.1 bpp"][1] == "yes" != stated["`live_plus`: DISTS at 0.1 bpp"][1]
    assert stated["`glc`: bytes over `vvc`'s at equal DISTS"] == ("out of range", "N/A")
    later = means[(means["codec"] != "glc") | (means["bpp"] > 0.1)]
    assert "| out of range | N/A |" in aims.table(later, figures.ROOT).splitlines()[-1]
