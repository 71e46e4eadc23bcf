"""GLC-video: predicted frames through real files, exact whatever disturbs the floats; the published shape; damage, seeking."""

from __future__ import annotations

import math
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import export_small_glc, export_small_vq, photo
from films import (
    SMALL_GLC_VIDEO,
    export_clip_codec,
    frames_of,
    moving,
    moving_latents,
    psnr,
    small_glc_video,
    written,
)
from test_video_damage import hurt, rewritten

import live
from live.checkpoints import codec_at, load_codec
from live.codecs import Glc, GlcConfig, GlcVideo, GlcVideoConfig, glc
from live.codecs.video import glc_video
from live.codecs.video.glc_video import adaptor_of, level_of
from live.coder import Count, Read, Write
from live.errors import ConfigError, DamagedFile, DecodeMismatch, InputError, ModelError
from live.priors.exact import LIMIT, UNIT, to_fixed
from live.priors.hyper import MEAN_PRECISION, anchor_mask
from live.priors.twopass import ExactTwoPass
from live.video.container import ClipReader
from testing.float_twins import FloatTwoPass

COUNT = 26_279_424
"""Parameters of predicted frames at the published sizes."""


@pytest.fixture(scope="module")
def folder(small_models: Path, tmp_path_factory) -> Path:
    """The small models, a small glc and a small glc_video over it."""
    folder = tmp_path_factory.mktemp("glc_video")
    shutil.copytree(small_models, folder, dirs_exist_ok=True)
    export_small_vq(folder)
    glc = export_small_glc(folder, 16)
    export_clip_codec(small_glc_video(glc), folder / "glc_video.safetensors")
    return folder


@pytest.fixture(autouse=True)
def glc_video_live(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(folder))
    return folder


@pytest.fixture
def codec(folder: Path) -> GlcVideo:
    return load_codec(folder / "glc_video.safetensors").at(2)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    live.compress_clip(moving(70, 50, 5), tmp_path / "clip.live", 1.5, codec="glc_video", fps=25, scene_cuts=False)
    return tmp_path / "clip.live"


@pytest.mark.parametrize("size", [(1, 1), (37, 21), (65, 17), (70, 50)])
def test_there_and_back_by_the_api(tmp_path, size):
    done = live.compress_clip(
        moving(*size, 5), tmp_path / "a.live", 1.5, codec="glc_video", fps=25, verify=True, scene_cuts=False
    )
    assert (done.frames, done.width, done.height) == (5, *size)
    with open(tmp_path / "a.live", "rb") as file:
        reader = ClipReader(file)
        assert [frame.intra for frame in reader.frames()] == [True, False, False, False, False]
        assert (reader.header.codec_id, reader.header.quality) == (4, 1 + 32)  # half of 63, rounded to even
    assert len(frames_of(tmp_path / "a.live")) == 5


@pytest.mark.parametrize("quality", [0, 1.3, 3])
def test_both_sides_come_to_the_same_state(codec, quality):
    """Also by another number of threads, and when every weight that only shapes pixels is disturbed before decoding."""
    codec, frames = codec.at(quality), [2 * frame for frame in moving_latents(8, 6, 9, 4)]
    streams, states = written(codec, frames)
    for threads, disturbed in ((1, False), (2, False), (1, True)):
        before, weights = torch.get_num_threads(), {k: v.clone() for k, v in codec.state_dict().items()}
        torch.set_num_threads(threads)
        if disturbed:
            with torch.no_grad():
                for network in (codec.context, codec.g_a, codec.g_s, codec.images[0].g_s):
                    for parameter in network.parameters():
                        parameter.add_(1e-3)
        try:
            state = None
            for number, stream in enumerate(streams):
                port = Read(stream, codec.symbol_count(6, 9, number == 0))
                latents, state = codec.decode(port, 6, 9, state)
                assert torch.equal(state.y_hat, states[number].y_hat) and state.position == number
                assert latents.shape == (1, 8, 6, 9)
                assert torch.equal(state.latents, states[number].latents) != disturbed
        finally:
            torch.set_num_threads(before)
            codec.load_state_dict(weights)
            codec_at.cache_clear()  # with the picture codec that was disturbed


def test_estimated_bits_are_those_of_real_bytes(codec):
    codec, frames = codec.at(0), [0.1 * frame for frame in moving_latents(8, 48, 64, 2)]  # without escapes
    _, estimate = codec.rollout(torch.stack(frames, 1), 0)
    streams, states = written(codec, frames)
    counted = Count()
    codec.encode(counted, frames[1], states[0])
    assert abs(8 * len(streams[1]) / counted.bits - 1) < 0.01
    assert abs(8 * len(streams[1]) / float(estimate.y_bits + estimate.z_bits) - 1) < 0.05


def test_a_frame_is_the_same_whether_it_was_sought_or_not(clip):
    whole = frames_of(clip)
    with live.clip_frames(clip, 3) as frames:
        assert psnr([np.asarray(frame) for frame in islice(frames, 2)], whole[3:]) == np.inf


def test_a_damaged_predicted_frame(tmp_path, clip):
    whole, damaged = frames_of(clip), hurt(clip, 2)
    with pytest.raises(DamagedFile, match="frame 2 does not have its checksum"):
        live.decompress_clip(damaged, tmp_path / "x.mp4")
    assert psnr(frames_of(damaged, salvage=True), [*whole[:2], whole[1], whole[1], whole[1]]) == np.inf


def test_salvage_goes_on_at_the_next_intra_frame(tmp_path):
    path = tmp_path / "a.live"
    live.compress_clip(moving(37, 21, 8), path, 2, codec="glc_video", fps=25, intra_period=3, scene_cuts=False)
    whole = frames_of(path)
    bad = rewritten(path, 4, lambda stream, crc: (stream, crc ^ 1))
    with pytest.raises(DecodeMismatch, match="frame 4: "):
        live.decompress_clip(bad, tmp_path / "x.mp4")
    for damaged in (hurt(path, 4), bad):
        assert psnr(frames_of(damaged, salvage=True), [*whole[:4], whole[3], whole[3], *whole[6:]]) == np.inf
    assert not (tmp_path / "x.mp4").exists()


@pytest.mark.parametrize("size", [(36, 8), (29, 21)])
def test_symbols_by_tiles_are_the_same_symbols(codec, size, monkeypatch):
    """Of every network by itself: the fields of view of integer ones, read off their twins, are wide enough."""
    frames = [2 * frame for frame in moving_latents(8, *size, 3)]
    streams, states = written(codec, frames)
    exact = codec._exact
    for module in (glc, glc_video):
        monkeypatch.setattr(module, "TILE", 8)
    for tiled in (*exact.temporal, exact.first, exact.later):
        monkeypatch.setattr(tiled, "core", 8)
    tiled_streams, tiled_states = written(codec, frames)
    assert tiled_streams == streams
    state = None
    for number, stream in enumerate(streams):
        port = Read(stream, codec.symbol_count(*size, number == 0))
        _, state = codec.decode(port, *size, state)
        for other in (state, tiled_states[number]):
            assert torch.equal(other.y_hat, states[number].y_hat)
            assert (other.latents - states[number].latents).abs().max() <= 1e-4 * states[number].latents.abs().max()


@torch.no_grad()
def test_integers_stay_near_the_float_network(codec):
    exact, floats, random = ExactTwoPass(codec.prior), FloatTwoPass(codec.prior), torch.Generator().manual_seed(1)

    def near(fixed: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
        assert (fixed - expected).abs().max() < 0.03 * UNIT and expected.std() > 0.01 * UNIT
        return fixed

    before, numbers = to_fixed(3 * torch.randn(1, 8, 12, 8, generator=random)), torch.tensor([0, 5, 15])
    for adaptor in range(4):
        base, features = near(exact.temporal(before, adaptor), floats.temporal[adaptor](before)).chunk(2, 1)
    seen = torch.cat([near(exact.spread(numbers, features), floats.spread(numbers, features)), features], 1)
    steps, _, _, reduced = near(exact.first(seen), floats.first(seen)).chunk(4, 1)
    u_hat = torch.randint(-200, 200, (1, 8, 12, 8), generator=random) * anchor_mask(12, 8)
    anchors = torch.cat([u_hat.double(), reduced], 1)
    near(exact.later(anchors), floats.later(anchors))
    near(exact.decoded(u_hat.double(), steps, base), u_hat / MEAN_PRECISION * steps + base)


def test_a_frame_decodes_to_what_training_expects(codec):
    codec, frames = codec.at(2), [2 * frame for frame in moving_latents(8, 32, 32, 2)]
    _, states = written(codec, frames)
    state, _ = codec.estimated(frames[1], states[0], codec.rate)
    apart = (state.y_hat - states[1].y_hat).abs() > 0.1  # around a symbol that floats and integers round apart
    assert apart.float().mean() < 0.03


def test_tokens_that_no_entry_has_are_harmless(tmp_path, codec, monkeypatch):
    """By escape a stream can state any number. Under right checksums such a clip decodes to some pictures."""
    code, numbers, passed = Write.code, np.array([-5, 16384, -16384], np.int32), []

    def forged(self, symbols, indices, tables):
        if tables is not codec.tables["z"]:
            return code(self, symbols, indices, tables)
        passed.append(code(self, numbers, indices, tables).tolist())
        return numbers

    with monkeypatch.context() as patch:
        patch.setattr(Write, "code", forged)
        live.compress_clip(moving(37, 21, 4), tmp_path / "a.live", 1, codec="glc_video", fps=25)
    assert passed == [numbers.tolist()] * 3
    assert [frame.shape for frame in frames_of(tmp_path / "a.live")] == [(21, 37, 3)] * 4


def test_streams_of_nonsense_under_right_checksums_are_named_by_their_frame(tmp_path, clip):
    whole = frames_of(clip)
    for alter in (lambda s, c: (bytes(len(s)), c), lambda s, c: (b"\xff" * len(s), c), lambda s, c: (s[:8], c)):
        bad = rewritten(clip, 3, alter)
        with pytest.raises((DamagedFile, DecodeMismatch), match=r"^frame 3: "):
            live.decompress_clip(bad, tmp_path / "x.mp4")
        assert psnr(frames_of(bad, salvage=True), [*whole[:3], whole[2], whole[2]]) == np.inf


@pytest.mark.parametrize("symbol", [1 << 14, -(1 << 14)])
def test_symbols_that_grow_without_end_stay_in_bounds(codec, symbol):
    """Forged: every frame adds the largest symbols to the one before; what selects probabilities stays integers in bounds."""

    class Forged(Count):
        def _code(self, symbols, indices, tables):
            assert indices.min() >= 0 and indices.max() < len(tables.sizes)
            return np.full(len(indices), symbol, np.int32)

    state = codec._coded(Forged(), 8, 8, None)
    for _ in range(12):
        state = codec._coded(Forged(), 8, 8, state)
    assert state.y_hat.abs().max() == LIMIT / UNIT and torch.equal(to_fixed(state.y_hat), UNIT * state.y_hat.double())


def test_levels_and_adaptors():
    assert [level_of(position) for position in range(8)] == [0, 1, 0, 2, 0, 2, 0, 2]
    assert [adaptor_of(position) for position in (1, 2, 3, 32, 33, 34)] == [0, 1, 3, 1, 0, 1]


def test_qualities(codec):
    assert codec.at(0).quality_byte == 1 and codec.at(3).quality_byte == 64
    assert len({codec.at(3 * level / 63).quality_byte for level in range(64)}) == 64
    assert all(codec.at_byte(byte).quality_byte == byte for byte in range(1, 65))
    with pytest.raises(InputError, match="choose from 0 to 3"):
        codec.at(3.1)
    for byte in (0, 65):
        with pytest.raises(DamagedFile):
            codec.at_byte(byte)
    with pytest.raises(InputError, match="clips"):
        live.compress(photo(40, 40), codec="glc_video")
    with pytest.raises(ConfigError, match="heads"):
        GlcVideoConfig(channels=10, heads=4)


def test_other_rates_are_refused(folder):
    glc = load_codec(folder / "glc_compact.safetensors")
    with pytest.raises(ModelError, match="rates"):
        GlcVideo(GlcVideoConfig(**{**vars(SMALL_GLC_VIDEO), "rates": 2})).attach([glc])


def test_rollouts_train_all_adaptors(codec):
    """Also that of the third level, which no frame has that is as near to an intra frame as a rollout is long."""
    model, latents = small_glc_video(codec.images[0]).train(), torch.cat(moving_latents(8, 8, 8, 4)).unsqueeze(0)
    torch.manual_seed(0)
    for _ in range(8):
        sum(frame.y_bits + frame.latents.square().sum() for frame in model.rollout(latents, 1)).backward()
    for context in (model.context, model.prior.context):
        assert all(bool(adaptor.weight.grad.abs().sum() > 0) for adaptor in context.adaptors)


@pytest.mark.slow
def test_the_published_shape_counted_and_through_a_file():
    torch.manual_seed(0)
    glc = Glc(GlcConfig()).eval()
    codec = GlcVideo(GlcVideoConfig())
    codec.start_from(glc)
    count = sum(parameter.numel() for parameter in codec.eval().parameters())
    assert count == COUNT, count
    assert codec.config.tokens * math.ceil(math.log2(codec.config.codebook)) == 224  # bits a frame, whatever its size
    for each in (glc, codec):
        each.build_tables()
    frames = [torch.randn(1, 256, 8, 8) for _ in range(2)]
    streams, states = written(codec.at(1), frames)
    state = None
    for number, stream in enumerate(streams):
        port = Read(stream, codec.symbol_count(8, 8, number == 0))
        latents, state = codec.at(1).decode(port, 8, 8, state)
        assert latents.shape == (1, 256, 8, 8) and torch.equal(state.y_hat, states[number].y_hat)
