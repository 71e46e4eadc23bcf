"""Coded files: made, decoded from disk by a process that has seen nothing else, timed and scored."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal

from PIL import Image

import live
from live.errors import ModelError, first_line, is_out_of_memory
from live.files import make_folder, write_atomic
from live.media import read_picture

from .anchors import Anchor
from .ours import STOPWATCH, Ours, codec_of
from .results import REFERENCES, SECONDS, Point
from .scoring import Seen, compare

FILES = "files"


@dataclass(frozen=True)
class Job:
    """One file to make: a picture and its name in the tables, a codec as the user named it, a setting.

    references: those that are still to be scored; known: size in bytes and timings of the file where the table has them.
    """

    picture: Path
    name: str
    codec: str
    setting: float
    references: tuple[str, ...]
    known: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Made:
    """What a coded file decodes to, its size in bytes, and the timings of a ``Point`` in their order."""

    decoded: Image.Image
    bytes: int
    seconds: tuple[float | None, ...]


def coded_file(out: Path, codec: str, name: str, setting: float) -> Path:
    """Where the coded file of a picture is kept."""
    peer = codec_of(codec)
    return out / FILES / peer.name / f"{name}_q{setting:g}{peer.suffix}"


def decode_file(codec: str, setting: float, path: Path) -> tuple[Image.Image, float, float | None]:
    """What a file decodes to, in how many seconds, and how many of them in an autoencoder."""
    data, peer = path.read_bytes(), codec_of(codec)
    if isinstance(peer, Ours):
        peer.load(setting)
    STOPWATCH.seconds = None
    start = time.perf_counter()
    image = peer.decode(data)
    return image, time.perf_counter() - start, STOPWATCH.seconds


class Evaluation:
    """Makes, decodes and scores files below ``out``; the decoder is a process of its own, fed with paths alone.

    autoencoder: the name of the one whose own reconstruction is the second reference, where that is asked for.
    """

    def __init__(self, dataset: str, out: Path, metrics: list[str], autoencoder: str | None = None):
        self.dataset, self.out, self.metrics, self.autoencoder = dataset, out, metrics, autoencoder
        # Ctrl-C is for this process; it ends the other.
        self.decoder = ProcessPoolExecutor(1, get_context("spawn"), signal, (SIGINT, SIG_IGN))
        self.warm: set[tuple[str, float]] = set()
        # Features are large: those of one picture, both references.
        self.reference = lru_cache(maxsize=len(REFERENCES))(self._reference)

    def measure(self, jobs: list[Job], images: list[Image.Image]) -> Iterator[Point]:
        """One point a reference. Several jobs, all of codecs that run programs of their own, run at the same time."""
        if len(jobs) > 1:
            with ThreadPoolExecutor(cores()) as threads:
                made = list(threads.map(self.make, jobs, images))
        else:
            made = [self.make(jobs[0], images[0])]
        for job, file, image in zip(jobs, made, images, strict=True):
            yield from self._score(job, file, image)

    def make(self, job: Job, image: Image.Image) -> Made:
        """Encode to a file, unless it is there and known, and decode the file.

        The first file of a codec at a setting is made twice, so that no load is timed; codecs that run programs load
        anew each time.
        """
        codec, path = codec_of(job.codec), coded_file(self.out, job.codec, job.name, job.setting)
        if job.known and path.exists() and path.stat().st_size == job.known[0]:
            decoded, *_ = self._decode(job, path)
            return Made(decoded, int(job.known[0]), tuple(None if s != s else s for s in job.known[1:]))
        runs = 1 if codec.runs_programs or (job.codec, job.setting) in self.warm else 2
        if isinstance(codec, Ours):
            codec.load(job.setting)
        for _ in range(runs):
            STOPWATCH.seconds = None
            start = time.perf_counter()
            data = _encoded(codec, job, image)
            encode_s, stage = time.perf_counter() - start, STOPWATCH.seconds
            make_folder(path.parent)
            write_atomic(path, data)
            decoded, decode_s, decode_stage = self._decode(job, path)
        self.warm.add((job.codec, job.setting))
        if decoded.size != image.size:
            raise ModelError(f"{codec.name} decodes {path} to {decoded.size}, not {image.size}; no point is taken")
        return Made(decoded, path.stat().st_size, (encode_s, decode_s, stage, decode_stage))

    def _score(self, job: Job, file: Made, image: Image.Image) -> Iterator[Point]:
        seen, (width, height) = Seen(file.decoded), image.size
        seconds = dict(zip(SECONDS, file.seconds, strict=True))
        for reference in job.references:
            figures = compare(seen, self.reference(reference, job.picture), self.metrics)
            row = (self.dataset, job.name, codec_of(job.codec).name, job.setting, reference, width, height, file.bytes)
            yield Point(*row, 8 * file.bytes / (width * height), **figures, **seconds)

    def _reference(self, kind: str, picture: Path) -> Seen:
        image = read_picture(picture)
        return Seen(live.autoencode(image, self.autoencoder) if kind == "autoencoder" else image)

    def _decode(self, job: Job, path: Path) -> tuple[Image.Image, float, float | None]:
        if codec_of(job.codec).runs_programs:  # which are processes of their own already
            return decode_file(job.codec, job.setting, path)
        try:
            return self.decoder.submit(decode_file, job.codec, job.setting, path).result()
        except BrokenProcessPool:
            raise ModelError(f"the decoder's process ended while decoding {path} (out of memory?)") from None


def _encoded(codec: Anchor, job: Job, image: Image.Image) -> bytes:
    """A picture's file; ModelError where the codec cannot take the picture, as WebP no more than 16383 px a side."""
    try:
        return codec.encode(image, job.setting)
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(codec, Ours) or is_out_of_memory(error):  # ours takes every picture
            raise
        raise ModelError(f"{codec.name} cannot code {job.name} ({first_line(error)}); leave one of them out") from None


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
