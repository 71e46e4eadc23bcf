"""``python -m testing.evaluate --data DIR --codecs live_plus,jpeg,webp --out DIR``: every codec through real files.

Each picture is encoded at each setting, written to disk, read back and decoded by another process that has seen
nothing but the file, and its 8-bit RGB is scored. Points go to OUT/points.csv one by one; an interrupted run goes on
where it stopped. Remove OUT to measure anew.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm import tqdm

from live.errors import InputError, ModelError, OutputError
from live.files import picture_files, write_atomic

from . import results
from .command import Parser, run
from .ours import codec_of
from .results import METRICS, REFERENCES, Point

POINTS = "points.csv"
FILES = "files"


def score(image: Image.Image, reference: Image.Image, metrics: list[str]) -> dict[str, float | None]:
    """Metrics of a decoded picture against a reference of the same size; None where the picture is too small."""
    from live.media import to_tensor
    from live.metrics import distortion, perceptual

    functions = {
        "psnr": lambda: distortion.psnr,
        "ms_ssim": lambda: distortion.ms_ssim,
        "lpips_alex": lambda: perceptual.lpips_network("alex"),
        "lpips_vgg": lambda: perceptual.lpips_network("vgg"),
        "dists": lambda: perceptual.dists_network(),
    }
    a, b = to_tensor(image), to_tensor(reference)
    defined = {name for name in metrics if min(image.size) >= METRICS[name].smallest}
    return {name: float(functions[name]()(a, b)) if name in defined else None for name in metrics}


@dataclass(frozen=True)
class Job:
    """One file to make: a picture, a codec's name and setting, and the references that are still to be scored."""

    picture: Path
    name: str
    codec: str
    setting: int
    references: tuple[str, ...]

    def file(self, out: Path) -> Path:
        """Where the coded file goes."""
        codec = codec_of(self.codec)
        return out / FILES / codec.name / f"{self.name}_q{self.setting}{codec.suffix}"


def evaluate(
    data: Path,
    codecs: list[str],
    out: Path,
    metrics: list[str],
    references: list[str],
    limit: int | None = None,
) -> pd.DataFrame:
    """Measure what is not yet in OUT/points.csv; returns all its points.

    data: a folder of pictures, whose name names the dataset; codecs: see ``codec_of``; metrics: of ``METRICS``;
    references: of ``REFERENCES``; limit: only the first pictures. Raises InputError, OutputError or ModelError.
    """
    pictures = picture_files(data)[:limit]
    table = out / POINTS
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error.strerror}") from None
    done = results.measured(results.load(table), metrics) if table.exists() else set()
    jobs = list(_jobs(data, pictures, codecs, references, done))
    with ProcessPoolExecutor(1, get_context("spawn")) as decoder:
        for job in tqdm(jobs, desc="evaluate", unit="file", file=sys.stderr, disable=not jobs):
            for point in _measure(job, data.resolve().name, out, metrics, decoder):
                results.append(table, point)
    return results.load(table)


def _jobs(
    data: Path, pictures: list[Path], codecs: list[str], references: list[str], done: set[tuple[object, ...]]
) -> Iterator[Job]:
    for picture in pictures:
        name = picture.relative_to(data).as_posix()
        for codec in map(codec_of, codecs):
            for setting in codec.settings:
                row = (data.resolve().name, name, codec.name, setting)
                missing = tuple(reference for reference in references if (*row, reference) not in done)
                if missing:
                    yield Job(picture, name, codecs[0] if False else codec.name, setting, missing)


if __name__ == "__main__":
    raise SystemExit(run(lambda: 0))
