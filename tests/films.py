"""Moving pictures, clips of them by ffmpeg, and codecs that predict: what the tests of video share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from conftest import perturb
from PIL import Image

import live
from live.checkpoints import export_codec, load_codec
from live.codecs import Glc, GlcVideo, GlcVideoConfig
from live.codecs.video.base import VideoCodec
from live.codecs.video.live_video import LiveVideo, LiveVideoConfig
from live.coder import Write
from live.video.codec import ClipCodec
from live.video.container import ClipReader
from live.video.ffmpeg import binary
from live.video.properties import Properties
from live.video.sink import open_sink
from live.video.source import open_source
from training.clips import is_held_out

RATE = Fraction(30000, 1001)
DEFAULT = ("-crf", "4", "-pix_fmt", "yuv420p")
FRAMES = 8
"""Of every clip to train on."""
SMALL_LIVE_VIDEO = LiveVideoConfig(channels=4, width=8, blocks=2, z_channels=3, qualities=2)
SMALL_GLC_VIDEO = GlcVideoConfig(
    channels=8, codebook=16, tokens=3, heads=2, context_blocks=1, transform_blocks=1, blocks=1, identity=True
)
_NAMES = [f"clip{number}.mp4" for number in range(40)]
HELD_OUT = next(name for name in _NAMES if is_held_out(Path(name)))
TRAINING = [name for name in _NAMES if not is_held_out(Path(name))][:3]


def moving(width: int, height: int, count: int) -> Iterator[Image.Image]:
    """Soft waves of strong colours that move two pixels a frame: a wrong matrix, range or place of chroma shows."""
    rows, columns = np.mgrid[0:height, 0 : width + 2 * count] / 7.0
    waves = [128 + 110 * np.sin(columns / (2 + c) + rows / (4 - c) + 2 * c) for c in range(3)]
    whole = Image.fromarray(np.stack(waves, -1).round().astype(np.uint8))
    for number in range(count):
        yield whole.crop((2 * number, 0, 2 * number + width, height))


def make_clip(path: Path, *options: str, size=(48, 32), count=5, rate="25", before: tuple[str, ...] = ()) -> Path:
    """A clip by ffmpeg of frames of ``moving``, H.264 nearly without loss unless the options say else."""
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*size), "-framerate", rate, "-i", "pipe:0"]
    command = [binary(), "-loglevel", "error", "-y", *raw, *before, *(options or DEFAULT), str(path)]
    frames = b"".join(frame.tobytes() for frame in moving(*size, count))
    done = subprocess.run(command, input=frames, capture_output=True, text=False)
    assert not done.returncode, done.stderr
    return path


def read(source: object, **options) -> tuple[Properties, list[np.ndarray], list[str]]:
    clip = open_source(source, **options)
    frames = [np.asarray(frame) for frame in clip.frames()]
    return clip.properties, frames, clip.notes


def write(path: Path, properties: Properties, lossless: bool = False, count: int = 5) -> list[np.ndarray]:
    frames = list(moving(properties.width, properties.height, count))
    with open_sink(path, properties, lossless) as sink:
        for frame in frames:
            sink.write(frame)
    return [np.asarray(frame) for frame in frames]


def psnr(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    error = np.mean((np.stack(a).astype(float) - np.stack(b)) ** 2)
    return 10 * np.log10(255**2 / error) if error else np.inf


class Differences(ClipCodec):
    """A temporal codec for tests: what a frame's latents differ by from the decoded ones before, every third frame whole."""

    intra_period = 3

    def __init__(self, codec) -> None:
        self._codec = codec

    def encode(self, port, latents, state):
        before = 0 if state is None else state
        coded = self._codec.reconstruct(self._codec.encode(port, latents - before))
        return coded[:, :, : latents.shape[2], : latents.shape[3]] + before

    def decode(self, port, height, width, state):
        latents = self._codec.decode(port, height, width) + (0 if state is None else state)
        return latents, latents

    def decoded(self, state):
        return state

    def symbol_count(self, height, width, intra):
        return self._codec.symbol_count(*self._codec.padded(height, width))


def frames_of(path: Path, **options) -> list[np.ndarray]:
    with live.clip_frames(path, **options) as frames:
        return [np.asarray(frame) for frame in frames]


def places(path: Path) -> list[tuple[int, int]]:
    with open(path, "rb") as file:
        return [(frame.place, frame.length) for frame in ClipReader(file).frames()]


def live_clip(folder: Path) -> Path:
    """A LIVE file of eight frames of 37 x 21."""
    live.compress_clip(moving(37, 21, 8), folder / "clip.live", 2, fps="30000/1001")
    return folder / "clip.live"


def training_clips(folder: Path) -> Path:
    """Clips that move two pixels a frame: one that is held out, three to train on, the first with a cut before frame 4."""
    for name in (HELD_OUT, *TRAINING):
        cut = ("-vf", "negate=enable='gte(n,4)'") if name == TRAINING[0] else ()
        make_clip(folder / name, *cut, *DEFAULT, size=(288, 272), count=FRAMES)
    return folder


def moving_latents(channels: int, height: int, width: int, count: int) -> list[torch.Tensor]:
    """Latents (1, c, h, w) of a pattern that moves by one position a frame."""
    torch.manual_seed(1)
    whole = torch.nn.functional.interpolate(torch.randn(1, channels, height, width), scale_factor=2, mode="bicubic")
    return [whole[:, :, :height, number : number + width].contiguous() for number in range(count)]


def written(codec: ClipCodec, frames: list[torch.Tensor]) -> tuple[list[bytes], list]:
    """The stream and the state of every frame of a clip's latents, the first an intra frame."""
    streams, states, state = [], [], None
    for frame in frames:
        port = Write()
        state = codec.encode(port, frame, state)
        streams.append(port.stream())
        states.append(state)
    return streams, states


def small_live_video(images: list, seed: int | None = 0) -> LiveVideo:
    """A small codec over two checkpoints of live_plus; without a seed untrained, else with random weights."""
    torch.manual_seed(0)
    codec = LiveVideo(SMALL_LIVE_VIDEO)
    codec.start_from(*images)
    if seed is not None:
        perturb(codec.temporal, seed)
        with torch.no_grad():
            codec.temporal.h_a[-1].weight.normal_(0, 0.3)
            codec.temporal.head.bias[codec.channels :] += 15
    return codec.eval()


def with_live_video(small_models: Path, folder: Path) -> Path:
    """A folder with the small models and a small live_video over them; returns it."""
    shutil.copytree(small_models, folder, dirs_exist_ok=True)
    images = [load_codec(folder / f"live_plus_q{quality}.safetensors") for quality in (1, 2)]
    export_clip_codec(small_live_video(images), folder / "live_video.safetensors")
    return folder


def small_glc_video(glc: Glc, seed: int | None = 0) -> GlcVideo:
    """A small codec over ``glc``; without a seed untrained, else with random weights."""
    torch.manual_seed(0)
    codec = GlcVideo(SMALL_GLC_VIDEO)
    codec.start_from(glc)
    if seed is not None:
        perturb(codec, seed)
        n, prior = codec.channels, codec.prior
        with torch.no_grad():  # else tokens, means, steps and rows are the same nearly everywhere
            prior.tokens.quantiser.codebook.mul_(0.3)
            for weight in (prior.head.weight, prior.second[-1].weight):
                weight.normal_(0, 0.1)
                weight[-n:] *= 5
    return codec.eval()


def export_clip_codec(codec: VideoCodec, path: Path) -> VideoCodec:
    """Beside its images, on their autoencoder."""
    image = codec.images[0].card
    card = {key: image[key] for key in ("autoencoder", "autoencoder_name", "factor")}
    return export_codec(codec, path, {"quality": 0, **card})
