"""Any autoencoder: codecs of pictures and of clips trained in miniature on one of diffusers', and what they then code."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from films import HELD_OUT, frames_of, training_clips
from PIL import Image

import live
from live.checkpoints import load_codec
from live.errors import ModelError
from live.latents import load_autoencoder
from live.pictures import decode_picture, encode_picture
from live.video.container import ClipReader
from live.video.source import open_source
from training import export, train_codec, train_video

PICTURES = """
schedule: {steps: 2, warmup: 1, validate_every: 2, lr: 1e-3}
phases: [{start: 0, batch: 2, crop: 64, l1: 0, alex: 0, latent_mse: 1.0}]
model: {width: 8, z_channels: 4, analysis_width: 8, synthesis_width: 8}
"""
CLIPS = """
codec: live_video
schedule: {steps: 3, warmup: 1, validate_every: 3, lr: 1e-3}
model: {width: 8, blocks: 1, z_channels: 4, qualities: 2}
lambdas: [0.2, 0.5]
phases: [{start: 0, batch: 2, crop: 64, frames: 3, l1: 1.0, alex: 0, latent_mse: 0.5}]
"""


@dataclass(frozen=True)
class Trained:
    """An autoencoder's folder, the checkpoints of pictures on it and the one of clips over them; a clip of the held-out ones."""

    vae: Path
    images: list[Path]
    video: Path
    clip: Path


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory) -> Trained:
    """By the commands that the README shows, over an untrained ``AutoencoderKL`` of 4 channels at f = 4."""
    folder = tmp_path_factory.mktemp("kl")
    torch.manual_seed(0)
    stages = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    size = {"block_out_channels": (8, 8, 16), "latent_channels": 4, "norm_num_groups": 4}
    net = AutoencoderKL(**stages, **size, mid_block_add_attention=False)  # which would take most of the time
    net.save_pretrained(folder / "vae")
    clips = folder / "clips"
    clips.mkdir()
    training_clips(clips)
    for name, text in (("pictures", PICTURES), ("clips", CLIPS)):
        (folder / f"{name}.yaml").write_text(text)
    images, vae = [], ["--vae", str(folder / "vae")]
    for quality, weight in ((1, "0.4"), (2, "4")):
        run, checkpoint = folder / f"run{quality}", folder / f"plus_q{quality}.safetensors"
        config = ["--config", str(folder / "pictures.yaml"), "--data", str(photos), "--run", str(run), *vae]
        assert train_codec.main([*config, "--lambda", weight]) == 0
        named = ["--run", str(run), "-o", str(checkpoint), "--quality", str(quality), *vae]
        assert export.main(["codec", *named]) == 0
        images.append(checkpoint)
    run, checkpoint, over = folder / "run", folder / "video.safetensors", ["--images", *map(str, images)]
    data = ["--config", str(folder / "clips.yaml"), "--clips", str(clips), "--data", str(photos), "--run", str(run)]
    assert train_video.main([*data, *over]) == 0
    assert export.main(["video", "--run", str(run), "-o", str(checkpoint), *over]) == 0
    return Trained(folder / "vae", images, checkpoint, clips / HELD_OUT)


def test_the_codec_of_clips_is_of_that_autoencoder(trained):
    codec, autoencoder = load_codec(trained.video), load_autoencoder(str(trained.vae))
    assert (codec.channels, codec.card["factor"]) == (autoencoder.channels, autoencoder.factor) == (4, 4)
    assert codec.card["autoencoder"] == autoencoder.identity
    assert [image.identity for image in codec.images] == [load_codec(path).identity for path in trained.images]


def small(clip: Path) -> list[Image.Image]:
    """Its first frames, at an odd size."""
    return [frame.crop((0, 0, 61, 43)) for frame in islice(open_source(clip).frames(), 4)]


@pytest.mark.parametrize("quality", [1, 2])
def test_a_clip_there_and_back(trained, tmp_path, quality):
    """Its symbols decode to what they were, by checksums; frame by frame also, by the codec of pictures."""
    for checkpoint, chosen in ((trained.video, quality), (trained.images[quality - 1], None)):
        options = {"checkpoint": checkpoint, "fps": 25, "verify": True}
        done = live.compress_clip(small(trained.clip), tmp_path / "a.live", chosen, **options)
        assert (done.frames, done.width, done.height) == (4, 61, 43)
        assert len(frames_of(tmp_path / "a.live", checkpoint=checkpoint)) == 4


def test_latents_there_and_back_are_those_of_the_pictures(trained, tmp_path):
    """What comes of the clip and of its frames' latents is the same, to the stream, the latent and the pixel."""
    autoencoder, checkpoint, pictures = load_autoencoder(str(trained.vae)), trained.video, small(trained.clip)
    live.compress_clip(pictures, tmp_path / "pictures.live", 2, checkpoint=checkpoint, fps=25)
    latents = [encode_picture(autoencoder, picture)[0] for picture in pictures]
    live.compress_clip_latents(latents, tmp_path / "latents.live", 2, checkpoint=checkpoint, verify=True)
    streams, decoded = [], []
    for name in ("pictures.live", "latents.live"):
        with open(tmp_path / name, "rb") as file:
            streams.append([frame[:4] for frame in ClipReader(file).frames()])
        with live.decompress_clip_latents(tmp_path / name, checkpoint=checkpoint) as frames:
            decoded.append(torch.cat(list(frames)))
    assert streams[0] == streams[1] and not all(intra for _, intra, *_ in streams[0])
    assert decoded[0].shape == (4, 4, 11, 16) and torch.equal(*decoded)
    for frame, seen in zip(
        decoded[0].split(1), frames_of(tmp_path / "pictures.live", checkpoint=checkpoint), strict=True
    ):
        assert (np.asarray(decode_picture(autoencoder, frame, (61, 43), None)) == seen).all()


def test_a_file_names_the_autoencoder_and_no_other_is_taken(trained, tmp_path):
    live.compress_clip_latents(
        [torch.zeros(4, 8, 8)], tmp_path / "a.live", checkpoint=trained.video, vae=str(trained.vae)
    )
    with open(tmp_path / "a.live", "rb") as file:
        assert load_autoencoder(str(trained.vae)).identity.startswith(ClipReader(file).header.autoencoder.hex())
    for given in ([torch.zeros(4, 8, 8)], torch.zeros(2, 4, 8, 8)):
        with pytest.raises(ModelError, match="was trained on the autoencoder"):
            live.compress_clip_latents(given, tmp_path / "b.live", checkpoint=trained.video, vae="compact")
