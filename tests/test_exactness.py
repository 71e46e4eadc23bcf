"""What integers cost, against the same networks in floating point, of every codec; exact networks of clips in batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import export_small_glc, export_small_vq, perturb, photo
from films import export_clip_codec, small_glc_video, with_live_video

from live.checkpoints import export_codec, load_codec
from live.codecs.paper import LivePaper, PaperConfig
from live.priors.exact import UNIT
from live.priors.hyper import MEAN_PRECISION, anchor_mask
from testing import exactness, glc
from testing.float_twins import FloatTemporal


@pytest.fixture(scope="module")
def folder(small_models: Path, tmp_path_factory) -> Path:
    """A small checkpoint of every codec."""
    folder = with_live_video(small_models, tmp_path_factory.mktemp("every_codec"))
    torch.manual_seed(0)
    paper = LivePaper(PaperConfig(n=6, m=8))
    perturb(paper, 0)
    card = {
        key: load_codec(folder / "live_plus_q1.safetensors").card[key]
        for key in ("autoencoder", "autoencoder_name", "factor")
    }
    export_codec(paper.eval(), folder / "live_paper_q1.safetensors", card | {"quality": 1})
    export_small_vq(folder)
    export_clip_codec(small_glc_video(export_small_glc(folder, 16)), folder / "glc_video.safetensors")
    return folder


@pytest.fixture(autouse=True)
def every_codec(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(folder))
    return folder


def test_cost_of_integers(tmp_path, capsys):
    photo(160, 128).save(tmp_path / "photo.png")
    assert exactness.main(["--data", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    qualities = {name: [row["quality"] for row in rows if row["codec"] == name] for name in exactness.KINDS}
    assert qualities == {"live_plus": [1, 2], "live_paper": [1], "live_video": [1, 2], "glc_video": [0, 1, 2, 3]}
    assert {row["codec"] for row in rows if row["arithmetic"] == "int24"} == {"live_plus"}
    assert all(row["float_bits"] > 1000 for row in rows)
    for row in rows:
        bound = (
            3 if row["codec"] == "glc_video" else 0.5
        )  # there a token that is chosen apart alters all frames to come
        assert all(abs(row[f"{name}_percent"]) < bound for name in ("own", "float64")), row
    assert exactness.main(["--data", str(tmp_path)]) == 0
    assert "| glc_video | 3 | float64 |" in capsys.readouterr().out


def test_the_parts_of_glc(tmp_path, capsys):
    photo(160, 128).save(tmp_path / "photo.png")
    assert glc.main(["--data", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["quality"] for row in rows] == [0, 1, 2, 3] and all(abs(row["integers_percent"]) < 3 for row in rows)


def test_a_codec_is_left_as_it_was(folder):
    codec = load_codec(folder / "live_plus_q1.safetensors")
    latents = [[torch.randn(1, 4, 16, 16)]]
    place, floats, _ = exactness.KINDS["live_plus"]
    own = getattr(codec, place)
    before = exactness.bits_with(codec, place, own, latents)
    assert exactness.bits_with(codec, place, floats(codec), latents) != before
    with pytest.raises(AttributeError):
        exactness.bits_with(codec, place, None, latents)
    assert getattr(codec, place) is own and exactness.bits_with(codec, place, own, latents) == before


def parts_of(whole: torch.Tensor) -> list[torch.Tensor]:
    return list(whole.split(1))


@torch.no_grad()
def test_a_batch_of_live_videos_frames_goes_as_its_frames_do(folder):
    codec = load_codec(folder / "live_video.safetensors")
    exact, floats = codec._exact, FloatTemporal(codec.temporal)
    torch.manual_seed(0)
    z, before = torch.randint(-3, 4, (4, 3, 4, 3)), torch.randint(-99, 99, (4, 4, 16, 12), dtype=torch.int32)
    y = torch.where(anchor_mask(16, 12), before + torch.randint(-9, 9, before.shape, dtype=torch.int32), 0)
    features = exact.features(z, before, 1)
    assert torch.equal(
        features, torch.cat([exact.features(*each, 1) for each in zip(z.split(1), before.split(1), strict=True)])
    )
    assert (features / UNIT - floats.features(z, before, 1)).abs().max() < 0.03
    together = exact.parameters_of(features, before, 1, y)
    alone = [exact.parameters_of(f, b, 1, k) for f, b, k in zip(*map(parts_of, (features, before, y)), strict=True)]
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(together, zip(*alone, strict=True), strict=True))
    means, rows = floats.parameters_of((features / UNIT).float(), before, 1, y)
    assert (means - together[0]).abs().max() <= 0.03 * MEAN_PRECISION + 1
    assert (rows.int() - together[1].int()).abs().max() <= 1


@torch.no_grad()
def test_a_batch_of_glc_videos_frames_goes_as_its_frames_do(folder):
    exact, random = load_codec(folder / "glc_video.safetensors")._exact.prior, torch.Generator().manual_seed(0)
    for network, channels in ((lambda x: exact.temporal(x, 2), 8), (exact.first, 16), (exact.later, 16)):
        x = torch.randint(-3 * UNIT, 3 * UNIT, (4, channels, 6, 8), generator=random).double()
        assert torch.equal(network(x), torch.cat([network(one) for one in x.split(1)]))
