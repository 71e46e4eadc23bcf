"""What the codecs of clips are trained on: crops of clips, cuts, photos in motion, the same ones at every run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from films import DEFAULT, FRAMES, TRAINING, make_clip, training_clips

from live.errors import InputError
from live.files import clip_files
from live.media import to_tensor
from training.clips import CUT_SHARE, Clips, cuts_in, split, steps_of
from training.data import Share
from training.motion import SPLICED_SHARE, Motion, moving, oval, shown


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return training_clips(tmp_path_factory.mktemp("clips"))


def pixels(seed: int, side: int = 96) -> torch.Tensor:
    return (to_tensor(photo(side, side, seed))[0] * 255).round().to(torch.uint8)


def test_examples_are_those_of_their_places(clips, photos):
    examples, held_out = split(clips, photos, 0.5, FRAMES, 64)
    first, files = examples.batch(1, 3, 4, 5, 64)
    assert first.shape == (4, 5, 3, 64, 64) and 0 <= first.min() < first.max() <= 1
    again, same_files = split(clips, photos, 0.5, FRAMES, 64)[0].batch(1, 3, 4, 5, 64)
    assert torch.equal(first, again) and files == same_files
    assert not torch.equal(first, examples.batch(1, 7, 4, 5, 64)[0])
    assert not torch.equal(first, examples.batch(2, 3, 4, 5, 64)[0])
    shares = [examples.batch(1, 3, 4, 5, 64, Share(rank, 2))[0] for rank in range(2)]
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), first), "two processes share what one would see"
    suffixes = {file.suffix for start in range(0, 24, 4) for file in examples.batch(1, start, 4, 2, 64)[1]}
    assert suffixes == {".mp4", ".png"}, "clips and photos in motion"
    assert held_out.shape == (1, 6, 3, 256, 256)


def test_a_window_is_frames_in_a_row(clips):
    """Every way of drawing one keeps the motion of two pixels a frame: forwards or backwards, each or every second one."""
    loaded, random = Clips([clips / name for name in TRAINING[1:]], 5, 64), np.random.default_rng(0)
    assert loaded.files == [clips / name for name in TRAINING[1:]]
    shifts = set()
    for _ in range(24):
        window = loaded.window(random, 3, 64)[0].float()
        errors = {}
        for shift in (-4, -2, -1, 1, 2, 4):  # 1: reduced to half its size
            before, after = window[:-1, ..., 8:-8], window.roll(shift, 3)[1:, ..., 8:-8]
            errors[shift] = (before - after).abs().mean().item()
        shifts.add(min(errors, key=errors.get))
        assert min(errors.values()) < 3
    assert shifts == {-4, -2, -1, 1, 2, 4}


def test_cuts_are_found_and_rarely_shown(clips):
    loaded = Clips([clips / name for name in TRAINING[:2]], FRAMES, 64)
    assert loaded.cuts == [[4], []]
    sound, broken = loaded.starts(3)
    assert {tuple(pair) for pair in broken} == {(0, 2), (0, 3)} and len(sound) == 2 * 6 - 2
    random = np.random.default_rng(0)
    windows = [loaded.window(random, 2, 32)[0].float() for _ in range(400)]
    over_cut = np.mean([(window[0] - window[1]).abs().mean() > 40 for window in windows])
    assert CUT_SHARE / 4 <= over_cut <= CUT_SHARE * 4


def test_fast_motion_is_no_cut():
    """A cut stands out from the differences around it, as motion and the flicker of a blink do not."""
    assert cuts_in(np.array([2.0, 2, 30, 3, 2])) == [3]
    assert cuts_in(np.array([14.0, 24, 27, 18, 10])) == cuts_in(np.array([1.0, 1, 10, 1])) == []
    frames = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    frames[2] = 255
    assert steps_of(frames).tolist() == [0, 255]


def test_the_held_out_view_is_where_the_clip_moves(tmp_path):
    """A clip that stands still for its first half."""
    clip = make_clip(tmp_path / "late.mp4", "-vf", "loop=12:1:0", *DEFAULT, size=(272, 256), count=8)
    view = Clips([clip], 6, 256).liveliest(6, 256)
    assert view.shape == (1, 6, 3, 256, 256)
    assert (view[0, 1:] - view[0, :-1]).abs().mean((1, 2, 3)).min() > 0.01


def test_pans_move_by_their_speed():
    right, down = (
        shown(pixels(1), motion.path(3, 48), np.random.default_rng(5)) for motion in (Motion(3), Motion(0, 2))
    )
    assert torch.allclose(right[1:, :, :, 3:], right[:-1, :, :, :-3], atol=0.1)
    assert torch.allclose(down[1:, :, 2:], down[:-1, :, :-2], atol=0.1)
    assert (right[1] - right[0]).abs().mean() > 1, "it moved at all"


def test_turns_are_clockwise_and_zooms_grow():
    turned = shown(pixels(2), Motion(turn=math.pi / 2).path(3, 47), np.random.default_rng(1))
    assert torch.allclose(turned[2], turned[1].rot90(-1, (1, 2)), atol=0.1)
    grown = shown(pixels(2), Motion(zoom=math.log(2)).path(3, 33), np.random.default_rng(1))
    assert torch.allclose(grown[2][:, ::2, ::2], grown[1][:, 8:25, 8:25], atol=0.1)


def test_photos_are_shown_reduced_and_enlarged():
    """A ramp rises by one a pixel; as it is shown, by as much as it is reduced."""
    ramp = torch.arange(200, dtype=torch.uint8).expand(3, 200, 200)
    films = [shown(ramp, Motion().path(1, 48), np.random.default_rng(seed))[0, 0, 1:-1, 1:-1] for seed in range(60)]
    rises = np.array([max(film.diff(dim=axis).abs().median().item() for axis in (0, 1)) for film in films])
    assert 0.48 < rises.min() < 0.6 and 1.6 < rises.max() < 1.77
    assert 0.4 < (rises < 1).mean() < 0.8


def test_what_passes_in_front_moves_as_one_piece():
    points = Motion(right=4).path(3, 64)
    cover = oval(points, np.random.default_rng(3))
    assert torch.allclose(cover[1:, :, :, 4:], cover[:-1, :, :, :-4], atol=1e-4)
    assert 0 < cover.mean() < 0.5 and set(cover.unique().tolist()) >= {0.0, 1.0}


def test_photos_in_motion_keep_their_pixels():
    random = np.random.default_rng(0)
    films = [moving(pixels(1), pixels(2), random, 4, 64) for _ in range(60)]
    assert all(film.shape == (4, 3, 64, 64) and film.dtype == torch.uint8 for film in films)
    speeds = [(film[1:].float() - film[:-1].float()).abs().mean().item() for film in films]
    assert min(speeds) == 0 and max(speeds) > 5, "some stand still, some are fast"


def test_a_share_of_the_photos_in_motion_is_cut(monkeypatch):
    """At a cut every pixel may change, once; how often there is one is what the share says."""
    monkeypatch.setattr("training.motion.drawn", lambda random: Motion())
    monkeypatch.setattr("training.motion.OCCLUDED_SHARE", 0.0)
    random = np.random.default_rng(0)
    changes = []
    for _ in range(200):
        film = moving(
            torch.zeros(3, 70, 80, dtype=torch.uint8), torch.full((3, 70, 80), 255, dtype=torch.uint8), random, 4, 64
        )
        changes.append((film[1:] != film[:-1]).flatten(1).float().mean(1))
    changes = torch.stack(changes)
    assert set(changes.unique().tolist()) == {0.0, 1.0} and changes.sum(1).max() == 1
    assert (changes.sum(0) > 0).all(), "anywhere"
    assert 0.5 * SPLICED_SHARE < changes.sum() / 200 < 1.5 * SPLICED_SHARE


def test_clips_that_do_not_do_are_refused(clips, photos, tmp_path):
    with pytest.raises(InputError, match="no clips in"):
        clip_files(photos)
    with pytest.raises(InputError, match="is not a folder"):
        clip_files(tmp_path / "nothing")
    (tmp_path / TRAINING[0]).write_bytes((clips / TRAINING[0]).read_bytes())
    with pytest.raises(InputError, match="leaves none"):
        split(tmp_path, photos, 0.2, 2, 64)
    with pytest.raises(InputError, match=f"no clip has {FRAMES + 1} frames of 64 px"):
        split(clips, photos, 0.2, FRAMES + 1, 64)
