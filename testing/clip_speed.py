"""Frames a second of our codecs of clips by stage, and of peers, side by side in one run, on one clip.

    python -m testing.clip_speed --clip FILE [--frames N] [--threads N] [--repeat N] [--json]

Medians of several passes over the clip's first frames; of ours after one that does not count. ``codec`` is networks and range
coder alone, ``autoencoder`` its networks alone, each by itself; ``whole`` is the command's work, a clip's file to LIVE and
back to H.264, where the two overlap and ffmpeg runs beside. A peer is run at the setting whose file is
nearest to that of the last of ours.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

import live
from live import api
from live.coder import Write
from live.command import Parser, run
from live.errors import InputError, ModelError
from live.pictures import encode_picture
from live.video.api import ClipFrames
from live.video.codec import clip_codec
from live.video.sink import open_sink
from live.video.source import open_source

from .clip_anchors import CLIP_ANCHORS

STAGES = ("autoencoder", "codec", "whole")
OURS = {"live_video": 2.0, "glc_video": 1.0}
"""Which codecs, at which quality."""
PEERS = ("x265_ld", "vvc_ld")
SOURCE = "source.mp4"
Rates = dict[str, float]


class Pace:
    """Frames a second: medians of ``repeat`` calls that do so many frames each."""

    def __init__(self, frames: int, repeat: int):
        self.frames, self.repeat, self.bar = frames, repeat, tqdm(desc="speed", unit="figure")

    def __call__(self, call: Callable[[], object]) -> float:
        seconds = []
        for _ in range(self.repeat):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        self.bar.update()
        return round(self.frames / statistics.median(seconds), 2)


def our_rates(
    pace: Pace, name: str, quality: float, frames: list[Image.Image], folder: Path
) -> tuple[Rates, Rates, int]:
    """A codec's encoding and decoding by stage, and the bytes of its file. folder: holds the frames as ``SOURCE``."""
    codec = api._codec(quality, None, name)
    autoencoder, coder = api._autoencoder(codec, None), clip_codec(codec)
    source, coded, seen = folder / SOURCE, folder / "clip.live", folder / "seen.mp4"
    live.compress_clip(source, coded, quality, codec=name)
    live.decompress_clip(coded, seen)
    latents = [encode_picture(autoencoder, frame)[0] for frame in frames]

    def encode_symbols() -> None:
        state = None
        for each in latents:
            port = Write()
            state = coder.encode(port, each, state)
            port.stream()

    def decoded() -> list[torch.Tensor]:
        with ClipFrames(coded, 0, None, None, False, sys.maxsize, sys.maxsize) as reader:
            return [each for _, each in reader._read(0)]

    back = decoded()
    reader = ClipFrames(coded, 0, None, None, False, sys.maxsize, sys.maxsize)
    encoding = {
        "autoencoder": pace(lambda: [encode_picture(autoencoder, frame) for frame in frames]),
        "codec": pace(encode_symbols),
        "whole": pace(lambda: live.compress_clip(source, coded, quality, codec=name)),
    }
    decoding = {
        "autoencoder": pace(lambda: [reader._shown(each) for each in back]),
        "codec": pace(decoded),
        "whole": pace(lambda: live.decompress_clip(coded, seen)),
    }
    reader.close()
    return encoding, decoding, coded.stat().st_size


def peer_rates(pace: Pace, name: str, frames: list[Image.Image], rate: Fraction, size: int, folder: Path) -> Rates:
    """A peer's whole encoding and decoding at the setting whose file is nearest to ``size`` bytes."""
    anchor, sizes = CLIP_ANCHORS[name], {}
    path = folder / f"clip{anchor.suffix}"
    for setting in anchor.settings:
        anchor.encode(frames, rate, path, setting)
        sizes[setting] = path.stat().st_size
        if sizes[setting] > size:  # from low to high
            break
    setting = min(sizes, key=lambda each: abs(sizes[each] - size))
    encode = pace(lambda: anchor.encode(frames, rate, path, setting))
    return {
        "setting": setting,
        "bytes": sizes[setting],
        "encode": encode,
        "decode": pace(lambda: list(anchor.decode(path))),
    }


def measure(clip: Path, count: int, repeat: int) -> dict[str, object]:
    """All of it, in frames a second."""
    opened = open_source(clip)
    frames, rate = list(islice(opened.frames(), count)), opened.properties.rate
    pace, ours, theirs = Pace(len(frames), repeat), {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open_sink(folder / SOURCE, opened.properties, lossless=False) as sink:
            for frame in frames:
                sink.write(frame)
        for codec, quality in OURS.items():
            encoding, decoding, size = our_rates(pace, codec, quality, frames, folder)
            ours[codec] = {"quality": quality, "bytes": size, "encoding": encoding, "decoding": decoding}
        for codec in PEERS:
            try:
                theirs[codec] = peer_rates(pace, codec, frames, rate, size, folder)
            except ModelError as error:
                print(f"live: {codec} left out: {error}", file=sys.stderr)
    width, height = frames[0].size
    return {
        "clip": f"{clip.name}, {width} x {height}, {len(frames)} frames",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "ours_fps": ours,
        "peers_fps": theirs,
    }


def table(facts: dict[str, object]) -> str:
    """Markdown: a row a codec, frames a second by stage."""
    heads = ["bytes", *(f"{way}: {stage}" for way in ("encode", "decode") for stage in STAGES)]
    lines = [f"| {facts['clip']}, {facts['threads']} threads | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name, ours in facts["ours_fps"].items():
        rates = [f"{ours[way][stage]:.1f}" for way in ("encoding", "decoding") for stage in STAGES]
        lines.append(f"| {name}, quality {ours['quality']:g} | {ours['bytes']} | {' | '.join(rates)} |")
    for name, peer in facts["peers_fps"].items():
        rates = ["–", "–", f"{peer['encode']:.1f}", "–", "–", f"{peer['decode']:.1f}"]
        lines.append(f"| {name} | {peer['bytes']} | {' | '.join(rates)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.clip_speed", description="Frames a second by stage, ours beside the peers.")
    parser.add_argument("--clip", type=Path, required=True, metavar="FILE")
    parser.add_argument("--frames", type=int, default=48, metavar="N", help="the first so many (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch; default: its own choice")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="passes a median is taken of (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object, as in results/clip_speed.json")
    args = parser.parse_args(argv)
    if (args.threads is not None and args.threads < 1) or args.repeat < 1 or args.frames < 1:
        raise InputError("--frames, --threads and --repeat must be 1 or more")
    if args.threads:
        torch.set_num_threads(args.threads)
    facts = measure(args.clip, args.frames, args.repeat)
    print(json.dumps(facts, indent=1) if args.json else table(facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
