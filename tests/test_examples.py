"""What trainings learn from: photos that are left out, crops by place, their variation, what a batch shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from live.config import load_yaml
from live.errors import InputError
from training.data import Photos, split
from training.schedule import Schedule

ROOT = Path(__file__).resolve().parent.parent


def test_a_photo_that_cannot_be_read_is_named_and_left_out(tmp_path, capsys):
    for number in range(3):
        Image.new("RGB", (300, 300)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    assert len(Photos(sorted(tmp_path.glob("*.png")), 64)) == 2
    assert "1.png is damaged or truncated" in capsys.readouterr().err
    with pytest.raises(InputError, match="no photo can be read"):
        Photos([tmp_path / "1.png"], 64)


def test_crops_depend_on_seed_and_place_alone(photos):
    data = Photos(sorted(photos.glob("*.png")), 32)
    first, files = data.batch(1, 5, 4, 32)
    again, _ = data.batch(1, 5, 4, 32)
    assert torch.equal(first, again) and first.shape == (4, 3, 32, 32) and len(files) == 4
    assert not torch.equal(first, data.batch(2, 5, 4, 32)[0])
    seen = [path for start in range(0, len(data), 4) for path in data.batch(1, start, 4, 32)[1]]
    assert len(set(seen)) == len(seen)


def test_crops_are_varied_in_detail(photos):
    """Most are enlarged parts of themselves, up to twice, with less detail from pixel to pixel; some remain as they are."""
    data = Photos(sorted(photos.glob("*.png")), 64)
    piece = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    random = np.random.default_rng(1)
    drawn = [data.varied(piece, random) for _ in range(300)]
    others = [crop for crop in drawn if not torch.equal(crop, piece)]
    assert 80 < len(drawn) - len(others) < 160, "38 % are expected to stay"
    assert all(crop.shape == piece.shape and crop.dtype == piece.dtype for crop in others)
    detail = [(crop[:, 1:].int() - crop[:, :-1]).abs().float().mean() for crop in (piece, *others)]
    assert max(detail[1:]) < 1.02 * detail[0] and min(detail[1:]) < 0.2 * detail[0]
    assert 0.4 < np.median(detail[1:]) / detail[0] < 0.9


def test_published_systems_see_photos_as_they_are():
    for name in (
        "live_paper",
        "live_paper_compact",
        "glc_paper/glc_stage1",
        "glc_paper/glc_stage2",
        "glc_paper/glc_stage3",
    ):
        assert load_yaml(ROOT / "configs" / f"{name}.yaml")["schedule"]["varied"] is False
    assert Schedule(1).varied


def test_crops_that_are_not_varied(photos):
    plain = split(photos, 64, vary=False)[0]
    piece = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    random = np.random.default_rng(1)
    assert all(plain.varied(piece, random) is piece for _ in range(50))


def test_what_holds_for_a_batch_is_drawn_alike_by_all():
    """By seed and step alone, whatever a process has drawn of its own."""
    schedule, drawn = Schedule(9, seed=3), []
    for rank in range(2):
        torch.manual_seed(rank)
        drawn.append([int(torch.randint(1 << 30, (), generator=schedule.generator_at(step))) for step in range(5)])
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 5
    noise = {
        torch.rand((), generator=torch.Generator().manual_seed(schedule.seed_at(4, rank))).item()
        for rank in range(-1, 8)
    }
    assert len(noise) == 9, "no process draws the noise of another, nor that of the batch"
