"""Seconds by stage, ours and the peers' side by side in one run, on one 768 x 512 photo.

python -m testing.speed [--data DIR] [-q N] [--threads N] [--repeat N] [--json]

Medians after a warm-up. A peer is run at the setting whose file is nearest to ours in size; it uses the threads that it
likes. CompressAI's float path is timed on the same latents, in two shapes: our own networks, and the published codec's
(untrained: its weights matter little for time).
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from live import __main__ as command
from live import api
from live.codecs.paper import LivePaper, PaperConfig
from live.codecs.plus import LivePlus
from live.coder import Port, Read, Write
from live.command import Parser, run
from live.container import pack, unpack
from live.errors import InputError, LiveError, ModelError
from live.files import picture_files
from live.latents import load_autoencoder
from live.media import read_picture, to_tensor
from live.pictures import decode_picture, encode_picture
from live.priors.hyper import half, put_half, scales_of

from .anchors import ANCHORS, Vvc
from .quickstart import photos

SIZE = (768, 512)
PEERS = (ANCHORS["heif"], ANCHORS["avif"], ANCHORS["vvc"], Vvc("vvc_medium", "medium"))
FOLDER = 8
"""Pictures in the folder job."""
Timings = dict[str, float]


class Clock:
    """Medians of ``repeat`` calls in milliseconds, after one that does not count."""

    def __init__(self, repeat: int):
        self.repeat, self.bar = repeat, tqdm(desc="speed", unit="figure")

    def __call__(self, call: Callable[[], object]) -> float:
        call()
        seconds = []
        for _ in range(self.repeat):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        self.bar.update()
        return round(1000 * statistics.median(seconds), 2)


class Recorder(Port):
    """Lets symbols pass uncoded and keeps what a coder would be given; then plays them back to a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.replay: Iterator[tuple] | None = None

    def code(self, symbols, indices, tables):
        if self.replay is not None:
            return next(self.replay)[0]
        self.calls.append((symbols, indices, tables))
        return symbols

    _code = code


def our_stages(clock: Clock, picture: Path, quality: int | None) -> tuple[Timings, Timings, bytes, Tensor]:
    """Encoding and decoding by stage, and whole; the file, and the latents."""
    image = read_picture(picture)
    codec = api._codec(quality, None)
    autoencoder = api._autoencoder(codec, None)
    latents, _ = encode_picture(autoencoder, image)
    data = api.compress(image, quality)
    latent_bytes = api.compress_latents(latents, quality)
    file = unpack(data)
    height, width = latents.shape[2:]
    recorder = Recorder()
    codec.encode(recorder, latents)
    calls = recorder.calls

    def networks_back() -> Tensor:
        recorder.replay = iter(calls)
        return codec.decode(recorder, height, width)

    def write() -> bytes:
        port = Write()
        for call in calls:
            port.code(*call)
        port.stream()
        return pack(file)

    def read() -> None:
        port = Read(unpack(data).stream, codec.symbol_count(*codec.padded(height, width)))
        for _, indices, tables in calls:
            port.code(None, indices, tables)

    decoded = networks_back()
    encoding = {
        "autoencoder": clock(lambda: encode_picture(autoencoder, image)),
        "transforms_and_entropy_networks": clock(lambda: codec.encode(Recorder(), latents)),
        "entropy_coding_and_container": clock(write),
        "latents_to_file": clock(lambda: api.compress_latents(latents, quality)),
        "photo_to_file": clock(lambda: api.compress(picture, quality)),
    }
    decoding = {
        "autoencoder": clock(lambda: decode_picture(autoencoder, decoded, image.size, None)),
        "transforms_and_entropy_networks": clock(networks_back),
        "entropy_coding_and_container": clock(read),
        "file_to_latents": clock(lambda: api.decompress_latents(latent_bytes)),
        "file_to_photo": clock(lambda: api.decompress(data)),
    }
    return encoding, decoding, data, latents


class FloatPath:
    """CompressAI's entropy models, in floating point, around the networks of ``live_plus``."""

    def __init__(self, codec: LivePlus):
        self.codec = copy.deepcopy(codec)
        self.hyper = self.codec.hyper
        self.hyper.entropy_bottleneck.update(force=True)
        self.hyper.gaussian.update_scale_table(self.hyper.gaussian.scale_table.tolist(), force=True)

    @torch.inference_mode()
    def compress(self, latents: Tensor) -> list[list[bytes]]:
        y = self.codec.analyse(latents)
        z = self.hyper.h_a(y)
        strings = [self.hyper.entropy_bottleneck.compress(z)]
        return strings + self._passes(strings[0], z.shape[2:], y, None)[0]

    @torch.inference_mode()
    def decompress(self, strings: list[list[bytes]], size: tuple[int, int]) -> Tensor:
        shape = (size[0] // 4, size[1] // 4)
        return self.codec.synthesise(self._passes(strings[0], shape, None, strings[1:])[1])

    def _passes(self, z_string, z_shape, y, strings):
        hyper, gaussian, written = self.hyper, self.hyper.gaussian, []
        features = hyper.features(hyper.entropy_bottleneck.decompress(z_string, z_shape))
        y_hat = features.new_zeros(1, hyper.channels, *features.shape[2:])
        for turn, anchors in enumerate((True, False)):
            found = hyper.parameters_of(features, None if anchors else y_hat)
            means, indices = (half(values, anchors).contiguous() for values in found)
            rows = gaussian.build_indexes(scales_of(indices))
            if y is not None:
                written.append(gaussian.compress(half(y, anchors), rows, means))
            string = written[-1] if y is not None else strings[turn]
            put_half(y_hat, anchors, gaussian.decompress(string, rows, means=means) if y is None else half(y, anchors))
        return written, y_hat


def compressai(clock: Clock, latents: Tensor, codec: LivePlus) -> dict[str, Timings]:
    """Latents to strings and back by CompressAI in floating point."""
    ours, paper = FloatPath(codec), LivePaper(PaperConfig(channels=latents.shape[1])).eval()
    paper.update(force=True)
    height, width = latents.shape[2:]
    full_height, full_width = paper.padded(height, width)
    latents = F.pad(latents, (0, full_width - width, 0, full_height - height), mode="replicate")
    strings = ours.compress(latents)
    with torch.inference_mode():
        out = paper.compress(latents)
        return {
            "our networks": {
                "latents_to_file": clock(lambda: ours.compress(latents)),
                "file_to_latents": clock(lambda: ours.decompress(strings, latents.shape[2:])),
            },
            "ScaleHyperprior as published": {
                "latents_to_file": clock(lambda: paper.compress(latents)),
                "file_to_latents": clock(lambda: paper.decompress(out["strings"], out["shape"])),
            },
        }


def peers(clock: Clock, image: Image.Image, size: int) -> dict[str, Timings]:
    """Whole encoding and decoding of every peer that is installed, at the setting nearest to ``size`` bytes."""
    rows: dict[str, Timings] = {}
    for anchor in PEERS:
        try:
            files = {setting: anchor.encode(image, setting) for setting in anchor.settings}
        except ModelError as error:
            print(f"live: {anchor.name} left out: {error}", file=sys.stderr)
            continue
        setting = min(files, key=lambda each: abs(len(files[each]) - size))
        rows[anchor.name] = {
            "setting": setting,
            "bytes": len(files[setting]),
            "photo_to_file": clock(lambda a=anchor, s=setting: a.encode(image, s)),
            "file_to_photo": clock(lambda a=anchor, d=files[setting]: a.decode(d)),
        }
    with contextlib.suppress(LiveError):  # TAEF2 needs LIVE_VAE_DIR
        tiny, pixels = load_autoencoder("taef2"), to_tensor(image)
        latents = tiny.encode(pixels)
        rows["taef2 (autoencoder alone)"] = {
            "photo_to_latents": clock(lambda: tiny.encode(pixels)),
            "latents_to_photo": clock(lambda: tiny.decode(latents)),
        }
    return rows


def start_up(clock: Clock, file: Path) -> Timings:
    """The command as a whole process, in milliseconds."""

    def process(*arguments: str) -> Callable[[], object]:
        words = [sys.executable, "-m", "live", *arguments]
        return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    return {
        "live info": clock(process("info", str(file))),
        "live compress --help": clock(process("compress", "--help")),
    }


def folder_job(picture: Path, folder: Path, quality: int | None) -> dict[str, float]:
    """Pictures a second by the command within this process: a folder at once, and its pictures one by one."""
    source = folder / "in"
    source.mkdir()
    files = [source / f"{number}.png" for number in range(FOLDER)]
    for file in files:
        file.write_bytes(picture.read_bytes())
    options = ["--force"] if quality is None else ["--force", "-q", str(quality)]

    def rate(jobs: list[list[str]]) -> float:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            codes = [command.main(["compress", *job, *options]) for job in jobs]
        assert not any(codes)
        return round(FOLDER / (time.perf_counter() - start), 2)

    one_by_one = [[str(file), "-o", str(folder / f"{file.stem}.live")] for file in files]
    rate(one_by_one[:1] * 2)
    return {"one by one": rate(one_by_one), "as a folder": rate([[str(source), "-o", str(folder / "out")]])}


def measure(data: Path | None, quality: int | None, repeat: int) -> dict[str, object]:
    """All of it, in milliseconds, and pictures a second for the folder job."""
    clock = Clock(repeat)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = next(iter(picture_files(photos(folder, data))))
        image = ImageOps.fit(read_picture(source), SIZE)
        picture, file = folder / "photo.png", folder / "photo.live"
        image.save(picture)
        encoding, decoding, coded, latents = our_stages(clock, picture, quality)
        file.write_bytes(coded)
        codec = api._codec(quality, None)
        return {
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "photo": f"{source.name}, {SIZE[0]} x {SIZE[1]}",
            "bytes": len(coded),
            "quality": codec.card["quality"],
            "latents": list(latents.shape[1:]),
            "encoding_ms": encoding,
            "decoding_ms": decoding,
            "compressai_float_ms": compressai(clock, latents, codec),
            "peers_ms": peers(clock, image, len(coded)),
            "start_up_ms": start_up(clock, file),
            "pictures_per_second": folder_job(picture, folder, quality),
        }


def table(facts: dict[str, object]) -> str:
    """For people: one line a figure."""
    lines = []
    for key, value in facts.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        for name, figure in rows:
            text = ", ".join(f"{k} {v}" for k, v in figure.items()) if isinstance(figure, dict) else str(figure)
            lines.append(f"{key:22} {name:34} {text}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.speed", description="Milliseconds by stage, ours beside the peers.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of photos; default: Kodak, or scikit-image's")
    parser.add_argument("-q", "--quality", type=int, metavar="N", help="embedded quality; default: the middle one")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch; default: its own choice")
    parser.add_argument("--repeat", type=int, default=9, metavar="N", help="calls a median is taken of (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object, as in results/speed.json")
    args = parser.parse_args(argv)
    if (args.threads is not None and args.threads < 1) or args.repeat < 1:
        raise InputError("--threads and --repeat must be 1 or more")
    if args.threads:
        torch.set_num_threads(args.threads)
    facts = measure(args.data, args.quality, args.repeat)
    print(json.dumps(facts, indent=1) if args.json else table(facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
