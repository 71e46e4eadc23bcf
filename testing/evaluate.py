"""``python -m testing.evaluate --data DIR --codecs live_plus,jpeg,webp --out DIR``: every codec through real files.

Each picture is encoded at each setting, written to disk, read back and decoded by another process that has seen
nothing but the file, and its 8-bit RGB is scored. Points go to OUT/points.csv one by one; an interrupted run goes on
where it stopped. Remove OUT to measure anew.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from typing import Any

import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import live
from live.command import Parser, run
from live.errors import InputError, ModelError, OutputError
from live.files import picture_files, write_atomic
from live.media import read_picture, to_tensor

from . import results
from .anchors import ANCHORS
from .ours import OURS, codec_of
from .results import METRICS, REFERENCES, Point

POINTS = "points.csv"
FILES = "files"


def _function(metric: str) -> Callable[[Tensor, Tensor], Any]:
    from live.metrics import distortion

    if metric in ("psnr", "ms_ssim"):
        return getattr(distortion, metric)
    from live.metrics import perceptual  # late: neither the decoder's process nor PSNR needs it

    return perceptual.dists_network() if metric == "dists" else perceptual.lpips_network(metric.removeprefix("lpips_"))


def score(image: Image.Image, reference: Image.Image, metrics: list[str]) -> dict[str, float | None]:
    """Metrics of a decoded picture against a reference of the same size; None where the picture is too small."""
    a, b = to_tensor(image), to_tensor(reference)
    defined = {name for name in metrics if min(image.size) >= METRICS[name].smallest}
    with torch.inference_mode():
        return {name: float(_function(name)(a, b)) if name in defined else None for name in metrics}


def make_folder(path: Path) -> None:
    """Make a folder for results; OutputError when that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}") from None


@dataclass(frozen=True)
class Job:
    """One file to make: a picture and its name in the tables, a codec as the user named it, a setting.

    references: those that are still to be scored.
    """

    picture: Path
    name: str
    codec: str
    setting: float
    references: tuple[str, ...]


def coded_file(out: Path, codec: str, name: str, setting: float) -> Path:
    """Where the coded file of a picture is kept."""
    peer = codec_of(codec)
    return out / FILES / peer.name / f"{name}_q{setting:g}{peer.suffix}"


def decode_file(codec: str, path: Path) -> tuple[Image.Image, float]:
    """What a file decodes to, and in how many seconds."""
    data = path.read_bytes()
    start = time.perf_counter()
    image = codec_of(codec).decode(data)
    return image, time.perf_counter() - start


@lru_cache(maxsize=4)
def _reference(kind: str, picture: Path) -> Image.Image:
    image = read_picture(picture)
    return live.autoencode(image) if kind == "autoencoder" else image


class Evaluation:
    """Makes, decodes and scores files below ``out``; the decoder is a process of its own, fed with paths alone."""

    def __init__(self, dataset: str, out: Path, metrics: list[str]):
        self.dataset, self.out, self.metrics = dataset, out, metrics
        # Ctrl-C is for this process; it ends the other.
        self.decoder = ProcessPoolExecutor(1, get_context("spawn"), signal, (SIGINT, SIG_IGN))
        self.warm: set[tuple[str, float]] = set()

    def measure(self, job: Job) -> list[Point]:
        """One point a reference. The first file of a codec at a setting is made twice, so that no load is timed."""
        codec, image = codec_of(job.codec), _reference("original", job.picture)
        path = coded_file(self.out, job.codec, job.name, job.setting)
        for _ in range(1 if (job.codec, job.setting) in self.warm else 2):
            start = time.perf_counter()
            data = codec.encode(image, job.setting)
            encode_s = time.perf_counter() - start
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
            decoded, decode_s = self._decode(job.codec, path)
        self.warm.add((job.codec, job.setting))
        if decoded.size != image.size:
            raise ModelError(f"{codec.name} decodes {path} to {decoded.size}, not {image.size}; no point is taken")
        points = []
        for reference in job.references:
            figures = score(decoded, _reference(reference, job.picture), self.metrics)
            size, (width, height) = path.stat().st_size, image.size
            row = (self.dataset, job.name, codec.name, job.setting, reference, width, height, size)
            points.append(Point(*row, 8 * size / (width * height), **figures, encode_s=encode_s, decode_s=decode_s))
        return points

    def _decode(self, codec: str, path: Path) -> tuple[Image.Image, float]:
        try:
            return self.decoder.submit(decode_file, codec, path).result()
        except BrokenProcessPool:
            raise ModelError(f"the decoder's process ended while decoding {path} (out of memory?)") from None


def evaluate(
    data: Path, codecs: list[str], out: Path, metrics: list[str], references: list[str], limit: int | None = None
) -> pd.DataFrame:
    """Measure what is not yet in OUT/points.csv; returns all its points.

    data: a folder of pictures, whose name names the dataset; codecs: see ``codec_of``; metrics: of ``METRICS``;
    references: of ``REFERENCES``; limit: only the first pictures. Raises InputError, OutputError or ModelError.
    """
    pictures = picture_files(data)[:limit]
    table = out / POINTS
    make_folder(out)
    done = results.measured(results.load(table), metrics) if table.exists() else set()
    evaluation = Evaluation(data.resolve().name, out, metrics)
    jobs = []
    for picture, codec in itertools.product(pictures, codecs):
        name, peer = picture.relative_to(data).as_posix(), codec_of(codec)
        for setting in peer.settings:
            row = (evaluation.dataset, name, peer.name, setting)
            missing = tuple(reference for reference in references if (*row, reference) not in done)
            jobs += [Job(picture, name, codec, setting, missing)] * bool(missing)
    with evaluation.decoder:
        for job in tqdm(jobs, desc="evaluate", unit="file", file=sys.stderr, disable=not jobs):
            for point in evaluation.measure(job):
                results.append(table, point)
    return results.load(table)


def tables(points: pd.DataFrame, metrics: list[str]) -> str:
    """Markdown: for each dataset and reference a heading and one row a codec and setting, averaged over pictures."""
    parts = []
    for (dataset, reference), means in results.mean_per_setting(points).groupby(["dataset", "reference"], sort=False):
        parts.append(f"{dataset}, {REFERENCES[reference]}\n\n{results.markdown(means, metrics)}")
    return "\n\n".join(parts)


def _names(text: str, known: Iterable[str], what: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            raise InputError(f"unknown {what} {name}; choose from {', '.join(known)}")
    return names


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.evaluate", description="Measure codecs over a folder, through real files.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument(
        "--codecs", default="live_plus,jpeg,webp", metavar="A,B", help=f"of {', '.join(OURS | ANCHORS)}"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for points.csv and files/")
    parser.add_argument("--metrics", default="psnr,lpips_alex", metavar="A,B", help=f"of {', '.join(METRICS)}")
    parser.add_argument("--reference", default="original", metavar="A,B", help=f"of {', '.join(REFERENCES)}")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise InputError("--limit must be at least 1")
    metrics = _names(args.metrics, METRICS, "metric")
    references = _names(args.reference, REFERENCES, "reference")
    codecs = [name for name in args.codecs.split(",") if name]
    points = evaluate(args.data, codecs, args.out, metrics, references, args.limit)
    print(tables(points, metrics))
    print(f"\nevery point: {args.out / POINTS}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main, "what was measured is kept"))
