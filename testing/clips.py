"""``python -m testing.clips --data DIR --codecs glc_video,x265_ld --out DIR``: codecs of clips through real files.

The first frames of each clip are encoded at each setting into one file, which is decoded again, ours in another process
that has seen nothing but the file. Each coded clip is a row of OUT/clips.csv and each of its frames one of
OUT/clip_frames.csv; coded files stay in OUT/files. An interrupted run goes on where it stopped; further codecs add to what
is there. Decoded frames pass through a temporary file, so memory does not grow with length.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from typing import NamedTuple

import pandas as pd
from PIL import Image
from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError, ModelError, OutputError
from live.files import clip_files, make_folder
from live.video.properties import Properties
from live.video.source import open_source

from . import origins, results
from .clip_anchors import CLIP_ANCHORS
from .clip_codecs import CLIP_OURS, clip_codec_of
from .clip_results import CLIP_METRICS, CLIPS, FRAMES, ClipRow, FrameRow, load_clips
from .clip_scoring import FrameScore, digits_of, label_of, mean_of, score_frames
from .measure import FILES
from .ours import STOPWATCH


class Clip(NamedTuple):
    """A clip's file, and of the frames that are coded their number and properties."""

    path: Path
    count: int
    properties: Properties


class Seconds(NamedTuple):
    """Wall time of a clip one way, and of it in the autoencoder."""

    all: float
    autoencoder: float | None


@lru_cache
def opened(path: Path, frames: int) -> Clip:
    """A clip, of which the first ``frames`` count, or all where there are fewer."""
    source = open_source(path)
    return Clip(path, sum(1 for _ in islice(source.frames(), frames)), source.properties)


def pixels_of(clip: Clip) -> int:
    """Of one frame."""
    return clip.properties.width * clip.properties.height


def frames_of(clip: Clip) -> Iterator[Image.Image]:
    """The frames of a clip that are coded, PIL RGB, 8 bit."""
    return islice(open_source(clip.path).frames(), clip.count)


def coded_clip(out: Path, codec: str, clip: str, setting: float) -> Path:
    """Where the coded file of a clip is kept."""
    return out / FILES / codec / f"{clip}_q{setting:g}{clip_codec_of(codec).suffix}"


def encode_clip(codec: str, clip: Clip, setting: float, path: Path) -> Seconds:
    """Encode a clip to a file, the reading of its source included in the seconds.

    A codec of ours encodes the first frame alone before, and ``decode_clip`` decodes it, so that no load is timed.
    """
    peer, rate = clip_codec_of(codec), clip.properties.rate
    make_folder(path.parent)
    if not peer.runs_programs:
        peer.encode(islice(frames_of(clip), 1), rate, path, setting)
    STOPWATCH.seconds, start = None, time.perf_counter()
    peer.encode(frames_of(clip), rate, path, setting)
    return Seconds(time.perf_counter() - start, STOPWATCH.seconds)


def decode_clip(codec: str, path: Path, raw: Path) -> Seconds:
    """Decode a file into another of 8-bit RGB pixels, frame behind frame."""
    peer = clip_codec_of(codec)
    if not peer.runs_programs:
        next(peer.decode(path))
    STOPWATCH.seconds, start = None, time.perf_counter()
    with open(raw, "wb") as file:
        for frame in peer.decode(path):
            file.write(frame.tobytes())
    return Seconds(time.perf_counter() - start, STOPWATCH.seconds)


def raw_frames(raw: Path, size: tuple[int, int]) -> Iterator[Image.Image]:
    """The frames of what ``decode_clip`` wrote."""
    with open(raw, "rb") as file:
        while pixels := file.read(3 * size[0] * size[1]):
            yield Image.frombytes("RGB", size, pixels)


class ClipEvaluation:
    """Makes, decodes and scores files below ``out``; ours are decoded by a process of its own, fed with paths alone."""

    def __init__(self, dataset: str, out: Path, every: int):
        self.dataset, self.out, self.every = dataset, out, every
        # Ctrl-C is for this process; it ends the other.
        self.decoder = ProcessPoolExecutor(1, get_context("spawn"), signal, (SIGINT, SIG_IGN))

    def measure(self, clip: Clip, codec: str, setting: float) -> tuple[ClipRow, list[FrameRow]]:
        """One coded clip. ModelError when it does not decode to as many frames of the same size."""
        path, shape = coded_clip(self.out, codec, clip.path.name, setting), clip.properties
        encoding = encode_clip(codec, clip, setting, path)
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "frames"
            decoding = self._decode(codec, path, raw)
            if raw.stat().st_size != 3 * shape.width * shape.height * clip.count:
                raise ModelError(
                    f"{codec} does not decode {path} to {clip.count} frames of the clip's size; no row is kept"
                )
            frames = raw_frames(raw, (shape.width, shape.height))
            watched = tqdm(frames, total=clip.count, desc=f"{path.name}", unit="frame", leave=False)
            scores = list(score_frames(frames_of(clip), watched, clip.count, self.every))
        sizes = clip_codec_of(codec).frame_bytes(path)
        key = (self.dataset, clip.path.name, codec, setting)
        return self._row(key, clip, path, sizes, scores, encoding, decoding), [
            FrameRow(*key, number, sizes and sizes[number], each.psnr, each.flicker, each.lpips_alex, each.dists)
            for number, each in enumerate(scores)
        ]

    def _row(
        self,
        key: tuple[str, str, str, float],
        clip: Clip,
        path: Path,
        sizes: list[int] | None,
        scores: list[FrameScore],
        encoding: Seconds,
        decoding: Seconds,
    ) -> ClipRow:
        size, (width, height) = path.stat().st_size, (clip.properties.width, clip.properties.height)
        figures = {name: mean_of(scores, name) for name in (*CLIP_METRICS, "flicker")}
        return ClipRow(
            *key, width, height, clip.count, self.every, size, 8 * size / (clip.count * width * height),
            sizes and sizes[0], **figures, encode_s=encoding.all, decode_s=decoding.all,
            encode_autoencoder_s=encoding.autoencoder, decode_autoencoder_s=decoding.autoencoder,
            fps=clip.count / decoding.all,
        )  # fmt: skip

    def _decode(self, codec: str, path: Path, raw: Path) -> Seconds:
        if clip_codec_of(codec).runs_programs:  # which are processes of their own already
            return decode_clip(codec, path, raw)
        try:
            return self.decoder.submit(decode_clip, codec, path, raw).result()
        except BrokenProcessPool:
            raise ModelError(f"the decoder's process ended while decoding {path} (out of memory?)") from None


def evaluate_clips(data: Path, codecs: list[str], out: Path, frames: int, every: int) -> pd.DataFrame:
    """Measure what is not yet in OUT/clips.csv; returns all its rows.

    data: a folder of clips, whose name names the dataset; codecs: see ``clip_codec_of``; frames: the first so many of each
    clip are coded; every: see ``ClipRow``. Raises InputError, also where the table is of other frames, OutputError or
    ModelError.
    """
    dataset, paths, table = data.resolve().name, clip_files(data), out / CLIPS
    settings = {codec: clip_codec_of(codec).settings for codec in codecs}
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is not a folder")
    made_of = origins.of_files(dataset, data, paths) | origins.of_codecs(map(clip_codec_of, codecs))
    origins.check(out, made_of)
    for kept in (table, out / FRAMES):
        results.drop_unfinished(kept)
    done = load_clips(table) if table.exists() else pd.DataFrame(columns=results.columns_of(ClipRow))
    results.check_names(done, "clip", dataset, [path.name for path in paths], out)
    done = done[done["dataset"] == dataset]
    for path in paths if len(done) else ():
        rows = done[done["clip"] == path.name]
        if not (rows["every"].eq(every) & rows["frames"].eq(opened(path, frames).count)).all():
            raise InputError(f"{table} was measured with other --frames or --every; give another folder for these")
    known = set(done[["clip", "codec", "setting"]].itertuples(index=False, name=None))
    jobs = [
        (path, codec, setting)
        for path in sorted(paths, key=lambda path: pixels_of(opened(path, frames)))  # so that much is soon known
        for codec in codecs for setting in settings[codec]
        if (path.name, codec, setting) not in known
    ]  # fmt: skip
    evaluation = ClipEvaluation(dataset, out, every)
    origins.record(out, made_of)
    with evaluation.decoder, tqdm(jobs, desc="clips", unit="file", disable=not jobs) as bar:
        for path, codec, setting in bar:
            row, rows = evaluation.measure(opened(path, frames), codec, setting)
            results.append(out / FRAMES, *rows)  # first, as the clip's row says that all is there
            results.append(table, row)
    return load_clips(table)


def table_of(rows: pd.DataFrame) -> str:
    """Markdown: one row a clip, codec and setting."""
    names = (*CLIP_METRICS, "flicker")
    head = ["clip", "codec", "setting", "bytes", "bpp", *map(label_of, names), "encoded/s", "decoded/s"]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows.itertuples(index=False):
        figures = (getattr(row, name) for name in names)
        cells = ["" if pd.isna(v) else f"{v:.{digits_of(n)}f}" for n, v in zip(names, figures, strict=True)]
        cells += [f"{row.frames / row.encode_s:.2f}", f"{row.fps:.2f}"]
        cells = [row.clip, row.codec, f"{row.setting:g}", f"{row.bytes:.0f}", f"{row.bpp:.4f}", *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.clips", description="Measure codecs over a folder of clips, as real files.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of clips")
    known = ", ".join(CLIP_OURS | CLIP_ANCHORS)
    parser.add_argument("--codecs", required=True, metavar="A,B", help=f"of {known}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"for {CLIPS}, {FRAMES} and {FILES}/")
    parser.add_argument("--frames", type=int, default=96, metavar="N", help="of each clip, from the first; %(default)s")
    what = "LPIPS and DISTS of each N-th frame and the last; %(default)s"
    parser.add_argument("--every", type=int, default=8, metavar="N", help=what)
    args = parser.parse_args(argv)
    if args.frames < 1 or args.every < 1:
        raise InputError("--frames and --every must be at least 1")
    codecs = results.names_of(args.codecs, "codec")
    rows = evaluate_clips(args.data, codecs, args.out, args.frames, args.every)
    print(table_of(rows))
    print(f"\nevery clip: {args.out / CLIPS}; every frame: {args.out / FRAMES}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main, "what was measured is kept"))
