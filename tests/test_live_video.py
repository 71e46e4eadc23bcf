"""LIVE-video: predicted frames through real files, exact whatever the threads; damage, seeking, bits, training's rollout."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from films import (
    SMALL_LIVE_VIDEO,
    frames_of,
    make_clip,
    moving,
    moving_latents,
    psnr,
    small_live_video,
    with_live_video,
    written,
)
from test_cli import refused
from test_video_damage import hurt, rewritten

import live
from live.__main__ import main
from live.checkpoints import by_quality, clip_codec_name, load_codec
from live.codecs import halves
from live.codecs.video.live_video import LiveVideo, LiveVideoConfig
from live.coder import Count, Read
from live.errors import DamagedFile, DecodeMismatch, InputError, ModelError, UnknownModel
from live.video.container import ClipReader


@pytest.fixture(scope="module")
def folder(small_models: Path, tmp_path_factory) -> Path:
    """The small models and a small live_video over them."""
    return with_live_video(small_models, tmp_path_factory.mktemp("video"))


@pytest.fixture(autouse=True)
def video_live(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(folder))
    return folder


@pytest.fixture
def codec(folder: Path) -> LiveVideo:
    return load_codec(folder / "live_video.safetensors").at(2)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    live.compress_clip(moving(37, 21, 5), tmp_path / "clip.live", 2, fps=25)
    return tmp_path / "clip.live"


@pytest.mark.parametrize("size", [(1, 1), (37, 21), (64, 48)])
def test_there_and_back_by_the_api(tmp_path, size):
    done = live.compress_clip(moving(*size, 5), tmp_path / "a.live", 2, fps="30000/1001", verify=True)
    assert (done.frames, done.width, done.height) == (5, *size)
    with open(tmp_path / "a.live", "rb") as file:
        reader = ClipReader(file)
        assert [frame.intra for frame in reader.frames()] == [True, False, False, False, False]
        assert (reader.header.codec_id, reader.header.quality, reader.header.intra_period) == (5, 2, 96)
    again = live.decompress_clip(tmp_path / "a.live", tmp_path / "a.mp4")
    assert (again.frames, again.lost) == (5, 0)
    assert len(frames_of(tmp_path / "a.live")) == 5


def test_predicted_frames_are_as_good_as_intra_frames(tmp_path, clip):
    live.compress_clip(moving(37, 21, 5), tmp_path / "intra.live", 2, codec="live_plus", fps=25)
    original = [np.asarray(frame) for frame in moving(37, 21, 5)]
    assert psnr(frames_of(clip), original) > psnr(frames_of(tmp_path / "intra.live"), original) - 1


def test_there_and_back_by_the_command(tmp_path, capsys):
    make_clip(tmp_path / "a.mp4")
    for number, options in enumerate((["--codec", "live_video", "--quality", "1"], [], ["--codec", "live_plus"])):
        output = tmp_path / f"{number}.live"
        assert main(["compress", str(tmp_path / "a.mp4"), "-o", str(output), *options]) == 0
        assert main(["decompress", str(output), "-o", str(tmp_path / f"{number}.y4m")]) == 0
        capsys.readouterr()
        assert main(["info", str(output), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        name, quality, intra = (("live_video", 1, 1), ("live_video", 2, 1), ("live_plus", 2, 5))[number]
        assert (facts["codec"], facts["quality"], facts["intra_frames"], facts["frames"]) == (name, quality, intra, 5)
    assert main(["models", "--json"]) == 0
    rows = {row["codec"]: row for row in json.loads(capsys.readouterr().out)["checkpoints"]}
    assert (rows["live_video"]["quality"], rows["live_video"]["highest_quality"]) == (1, 2)


def test_the_codec_of_a_clip_where_none_is_asked_for(small_models, monkeypatch):
    assert clip_codec_name() == "live_video"
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(small_models))
    assert clip_codec_name() == "live_plus"


def test_refusals(tmp_path, capsys, video_live):
    photo(40, 30).save(tmp_path / "p.png")
    (tmp_path / "folder").mkdir()
    photo(40, 30).save(tmp_path / "folder" / "p.png")
    make_clip(tmp_path / "a.mp4")
    for source in (tmp_path / "p.png", tmp_path / "folder"):
        said = refused(capsys, "compress", source, "--codec", "live_video")
        assert "live_video is a codec of clips" in said
    checkpoint = video_live / "live_video.safetensors"
    assert "is a codec of clips" in refused(capsys, "compress", tmp_path / "p.png", "--checkpoint", checkpoint)
    with pytest.raises(InputError, match="is a codec of clips"):
        live.compress_latents(torch.zeros(4, 8, 8), codec="live_video")
    for quality in ("3", "1.5"):
        said = refused(capsys, "compress", tmp_path / "a.mp4", "-q", quality)
        assert f"unknown quality {quality} of live_video; choose from 1, 2" in said
    assert not list(tmp_path.glob("**/*.live"))


def test_a_picture_that_claims_a_codec_of_clips(codec):
    from live.container import pack, unpack

    file = vars(unpack(live.compress(photo(20, 20), 2)))
    claim = {"codec_id": codec.codec_id, "model": bytes.fromhex(codec.identity)[:8]}
    forged = pack(type(unpack(live.compress(photo(20, 20), 2)))(**(file | claim)))
    for decode in (live.decompress, live.decompress_latents):
        with pytest.raises(DamagedFile, match="live_video is a codec of clips"):
            decode(forged)


def test_a_clip_with_a_quality_that_the_codec_lacks(tmp_path, clip):
    with open(clip, "rb") as file:
        header = ClipReader(file).header
        frames = list(ClipReader(file).frames())
    from live.video.container import ClipWriter

    with open(tmp_path / "b.live", "wb") as file:
        writer = ClipWriter(file, type(header)(**(vars(header) | {"quality": 9})))
        for frame in frames:
            writer.add(frame.stream, frame.symbols_crc, frame.intra)
        writer.finish()
    with pytest.raises(DamagedFile, match="does not have the quality"):
        live.decompress_clip(tmp_path / "b.live", tmp_path / "b.mp4")


@pytest.mark.parametrize("quality", [1, 2])
def test_both_sides_come_to_the_same_state(codec, quality):
    """Also when the symbols are decoded by another number of threads."""
    codec, frames = codec.at(quality), moving_latents(4, 13, 11, 4)
    streams, states = written(codec, frames)
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            state = None
            for number, stream in enumerate(streams):
                port = Read(stream, codec.symbol_count(13, 11, number == 0))
                latents, state = codec.decode(port, 13, 11, state)
                assert torch.equal(state.y_hat, states[number].y_hat) and state.position == number
                assert latents.shape == (1, 4, 13, 11)
        finally:
            torch.set_num_threads(before)


def test_symbols_by_tiles_are_the_same_symbols(codec, monkeypatch):
    frames = moving_latents(4, 70, 53, 2)
    whole, _ = written(codec, frames)
    monkeypatch.setattr(halves, "EXACT_TILE", 16)
    assert written(codec, frames)[0] == whole
    port = Read(whole[0], codec.symbol_count(70, 53, True))
    _, state = codec.decode(port, 70, 53, None)
    port = Read(whole[1], codec.symbol_count(70, 53, False))
    codec.decode(port, 70, 53, state)
    count = Count()
    codec.encode(count, frames[1], state)
    assert port.crc == count.crc


def test_a_frame_is_the_same_whether_it_was_sought_or_not(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(LiveVideo, "intra_period", 3)
    live.compress_clip(moving(37, 21, 8), tmp_path / "a.live", 1, fps=25)
    whole = frames_of(tmp_path / "a.live")
    for start in range(8):
        assert psnr(frames_of(tmp_path / "a.live", start=start), whole[start:]) == np.inf
    with open(tmp_path / "a.live", "rb") as file:
        assert [frame.number for frame in ClipReader(file).frames() if frame.intra] == [0, 3, 6]


def test_a_damaged_predicted_frame(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(LiveVideo, "intra_period", 3)
    live.compress_clip(moving(37, 21, 8), tmp_path / "a.live", 2, fps=25)
    whole, damaged = frames_of(tmp_path / "a.live"), hurt(tmp_path / "a.live", 4)
    with pytest.raises(DamagedFile, match="frame 4 does not have its checksum"):
        live.decompress_clip(damaged, tmp_path / "x.mp4")
    assert psnr(frames_of(damaged, salvage=True), [*whole[:4], whole[3], whole[3], *whole[6:]]) == np.inf
    bad = rewritten(tmp_path / "a.live", 4, lambda stream, crc: (stream, crc ^ 1))
    with pytest.raises(DecodeMismatch, match="frame 4: "):
        live.decompress_clip(bad, tmp_path / "x.mp4")
    assert psnr(frames_of(bad, salvage=True), [*whole[:4], whole[3], whole[3], *whole[6:]]) == np.inf
    assert not (tmp_path / "x.mp4").exists()


def test_estimated_bits_are_those_of_real_bytes(codec):
    codec, frames = codec.at(1), [0.5 * frame for frame in moving_latents(4, 64, 60, 3)]  # without escapes
    _, estimate, _ = codec.rollout(torch.stack(frames, 1), codec.rate)
    streams, states = written(codec, frames)
    counted = Count()
    codec.encode(counted, frames[1], states[0])
    bits = float(estimate.y_bits + estimate.z_bits)
    assert abs(8 * len(streams[1]) / counted.bits - 1) < 0.01
    assert abs(8 * len(streams[1]) / bits - 1) < 0.03
    apart = (estimate.latents - states[1].latents).abs() > 0.05  # around a symbol that floats and integers round apart
    assert apart.float().mean() < 0.03


def test_an_untrained_frame_of_what_stands_still_costs_almost_nothing(folder):
    images = [load_codec(folder / f"live_plus_q{quality}.safetensors") for quality in (1, 2)]
    codec = small_live_video(images, None)
    codec.build_tables()
    frame = moving_latents(4, 32, 32, 1)[0]
    streams, states = written(codec.at(2), [frame] * 4)
    assert len(streams[1]) < 0.25 * len(streams[0])  # its steps are finer
    assert max(len(stream) for stream in streams[2:]) < 0.05 * len(streams[0])
    assert torch.equal(states[3].y_hat, states[1].y_hat)


def test_the_network_lowers_the_rate_of_what_moves(folder):
    """A few steps of training by ``rollout``, and the real bytes of what follows shrink."""
    images = [load_codec(folder / f"live_plus_q{quality}.safetensors") for quality in (1, 2)]
    frames = torch.stack(moving_latents(4, 32, 32, 3), 1)

    def size(codec: LiveVideo) -> int:
        codec.build_tables()
        vars(codec).pop("_exact", None)
        return len(written(codec.at(2), list(frames.unbind(1)))[0][2])

    codec = small_live_video(images, None)
    before = size(codec)
    codec.train()
    optimizer = torch.optim.Adam([p for p in codec.parameters() if p.requires_grad], 1e-2)
    for _ in range(60):
        loss = sum(frame.y_bits + frame.z_bits for frame in codec.rollout(frames, 1)[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert size(codec.eval()) < 0.8 * before


def test_rollout_is_differentiable_through_time(codec):
    torch.manual_seed(0)
    latents = torch.stack(moving_latents(4, 16, 16, 3), 1).clone().requires_grad_(True)
    model = small_live_video(list(codec.images)).train()
    frames = model.rollout(latents, 1)
    assert [frame.latents.shape for frame in frames] == [(1, 4, 16, 16)] * 3
    gradient = torch.autograd.grad(frames[2].y_bits + frames[2].z_bits, latents, retain_graph=True)[0]
    assert [bool(gradient[:, number].abs().sum() > 0) for number in range(3)] == [False, True, True]
    (frames[1].y_bits + frames[1].z_bits + frames[1].vq_loss + frames[1].latents.square().sum()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert all(".0." in name or name.endswith("quantiles") for name in missing), missing  # of the other quality
    assert not any(parameter.requires_grad for image in model.images for parameter in image.parameters())


def test_a_checkpoint_names_its_images(tmp_path, folder, codec, monkeypatch):
    assert codec.card["images"] == [load_codec(by_quality(quality).path).identity for quality in (1, 2)]
    assert not any(name.startswith("images") for name in codec.state_dict())
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(tmp_path / "none"))
    for name in ("live_video", "live_plus_q1"):
        shutil.copy(folder / f"{name}.safetensors", tmp_path)
    (tmp_path / "other.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(UnknownModel, match=codec.card["images"][1][:16]):
        load_codec(tmp_path / "live_video.safetensors")
    shutil.copy(folder / "live_plus_q2.safetensors", tmp_path / "moved.safetensors")
    assert load_codec(tmp_path / "live_video.safetensors").qualities == [1, 2]


def test_images_that_do_not_fit_are_refused(codec):
    first, second = codec.images
    for images in ((first,), (second, first), (first, first), (first, first, second)):
        with pytest.raises(ModelError, match="ascending qualities"):
            LiveVideo(SMALL_LIVE_VIDEO).attach(images)
    with pytest.raises(ModelError, match="not by live_video"):
        LiveVideo(SMALL_LIVE_VIDEO).attach([first, codec])
    with pytest.raises(ModelError, match="for 8 latent channels"):
        LiveVideo(LiveVideoConfig(8, 8, 1, 2, 2)).attach(codec.images)


def test_memory_does_not_grow_with_the_length(codec):
    """What a frame leaves to the next one is as large after many frames as after two."""
    frames = moving_latents(4, 8, 8, 8)
    _, states = written(codec, frames)
    sizes = [sum(t.untyped_storage().nbytes() for t in (s.y_hat, s.latents)) for s in islice(states, 1, None)]
    assert len(set(sizes)) == 1


def test_symbols_that_grow_without_end_stay_in_bounds(codec):
    """Forged: every frame adds the largest symbols to the one before."""

    class Forged(Count):
        def _code(self, symbols, indices, tables):
            return np.full(len(indices), 1 << 14, np.int32)

    state = codec._coded(Forged(), 8, 8, None)
    for _ in range(40):
        state = codec._coded(Forged(), 8, 8, state)
    assert state.y_hat.min() > 0 and state.y_hat.max() < 1 << 22
