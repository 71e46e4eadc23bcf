"""``python -m testing.evaluate --data DIR --codecs live_plus,jpeg,webp --out DIR``: every codec through real files.

Each picture is encoded at each setting, written to disk, read back and decoded by another process that has seen
nothing but the file, and its 8-bit RGB is scored, against the original photo and against what the autoencoder alone
makes of it. Points go to OUT/points.csv one by one; an interrupted run goes on where it stopped, and asking for more
metrics scores the files that are there. Remove OUT to measure anew. A picture that cannot be read is left out and named
at the end; the exit code is 1 then.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError, OutputError
from live.files import picture_files
from live.latents import load_autoencoder
from live.media import read_picture

from . import origins, results
from .anchors import ANCHORS
from .measure import Evaluation, Job, cores
from .ours import OURS, autoencoder_of, codec_of
from .results import METRICS, REFERENCES

POINTS = "points.csv"


def plan(
    data: Path,
    pictures: list[Path],
    codecs: list[str],
    references: list[str],
    done: results.Done,
    elsewhere: Collection[str] = (),
) -> list[Job]:
    """What is missing. Codecs that run programs come first, so that many of theirs stand together; then by picture.

    elsewhere: codecs that code the latents of another autoencoder than the reference's, and are held against originals alone.
    """
    jobs, dataset = [], data.resolve().name
    for picture, codec in itertools.product(pictures, codecs):
        name, peer = picture.relative_to(data).as_posix(), codec_of(codec)
        against = [each for each in references if each != "autoencoder" or codec not in elsewhere]
        for setting in peer.settings:
            row = (dataset, name, peer.name, setting)
            missing = tuple(reference for reference in against if (*row, reference) not in done.complete)
            jobs += [Job(picture, name, codec, setting, missing, done.files.get(row))] * bool(missing)
    return sorted(jobs, key=lambda job: not codec_of(job.codec).runs_programs)


def windows(jobs: list[Job]) -> Iterator[list[Job]]:
    """The jobs in order: alone, or as many together as keep the cores busy where the codecs run programs."""
    together = [job for job in jobs if codec_of(job.codec).runs_programs]
    size = 2 * cores()
    yield from (together[start : start + size] for start in range(0, len(together), size))
    yield from ([job] for job in jobs[len(together) :])


def missing(
    data: Path, codecs: list[str], out: Path, metrics: list[str], references: list[str], limit: int | None = None
) -> list[Job]:
    """The jobs of ``evaluate``, which says what is refused here."""
    pictures, table = picture_files(data)[:limit], out / POINTS
    _check(codecs, out)
    origins.check(out, _origins(data, pictures, codecs, references))
    results.drop_unfinished(table)
    done = results.Done()
    if table.exists():
        points = results.load(table)
        names = [picture.relative_to(data).as_posix() for picture in pictures]
        results.check_names(points, "picture", data.resolve().name, names, out)
        done = results.done(points, metrics)
    elsewhere = autoencoder_of(codecs)[1] if "autoencoder" in references else []
    return plan(data, pictures, codecs, references, done, elsewhere)


def _origins(data: Path, pictures: list[Path], codecs: list[str], references: list[str]) -> dict[str, str]:
    found = origins.of_files(data.resolve().name, data, pictures) | origins.of_codecs(map(codec_of, codecs))
    if "autoencoder" in references:
        found["autoencoder"] = load_autoencoder(autoencoder_of(codecs)[0]).identity
    return found


def evaluate(
    data: Path,
    codecs: list[str],
    out: Path,
    metrics: list[str],
    references: list[str],
    limit: int | None = None,
    unreadable: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Measure what is not yet in OUT/points.csv; returns all its points.

    data: a folder of pictures, whose name names the dataset; codecs: see ``codec_of``; metrics: of ``METRICS``;
    references: of ``REFERENCES``; limit: only the first pictures; unreadable: takes name and reason of every picture
    that cannot be read; without it such a picture is refused. Raises InputError, OutputError or ModelError.
    """
    jobs, table = missing(data, codecs, out, metrics, references, limit), out / POINTS
    autoencoder = autoencoder_of(codecs)[0] if "autoencoder" in references else None
    evaluation = Evaluation(data.resolve().name, out, metrics, autoencoder)
    bad: dict[str, str] = {}
    results.add_columns(table)
    unrecorded = _origins(data, picture_files(data)[:limit], codecs, references) if jobs else {}
    with evaluation.decoder, tqdm(total=len(jobs), desc="evaluate", unit="file", disable=not jobs) as bar:
        for window in windows(jobs):
            readable = [(job, image) for job in window if (image := _read(job, bad, unreadable is None))]
            for point in evaluation.measure(*zip(*readable, strict=True)) if readable else ():
                if unrecorded:
                    origins.record(out, unrecorded)
                    unrecorded = {}
                results.append(table, point)
            bar.update(len(window))
    if unreadable is not None:
        unreadable |= bad
    if not table.exists():
        raise InputError(f"no picture can be read: {next(iter(bad.values()))}")
    return results.load(table)


def _check(codecs: list[str], out: Path) -> None:
    """Refuse before any work what would only show later: codecs that the table cannot tell apart, a file as folder."""
    names = [codec_of(codec).name for codec in codecs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two of the codecs are called {twice[0]}; rename the folder of checkpoints")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is not a folder")


@lru_cache(maxsize=8)
def _opened(path: Path) -> Image.Image:
    return read_picture(path)


def _read(job: Job, bad: dict[str, str], refuse: bool) -> Image.Image | None:
    """A job's picture; None where it cannot be read, which ``bad`` then holds."""
    if job.name not in bad:
        try:
            return _opened(job.picture)
        except InputError as error:
            if refuse:
                raise
            bad[job.name] = str(error)
    return None


def tables(points: pd.DataFrame, metrics: list[str]) -> str:
    """Markdown: for each dataset and reference a heading and one row a codec and setting, averaged over pictures."""
    parts = []
    for (dataset, reference), means in results.mean_per_setting(points).groupby(["dataset", "reference"], sort=False):
        parts.append(f"{dataset}, {REFERENCES[reference]}\n\n{results.markdown(means, metrics)}")
    return "\n\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.evaluate", description="Measure codecs over a folder, through real files.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument(
        "--codecs",
        default="live_plus,jpeg,webp",
        metavar="A,B",
        help=f"of {', '.join(OURS | ANCHORS)}, and folders of codec checkpoints; default: %(default)s",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for points.csv and files/")
    parser.add_argument("--metrics", default=",".join(METRICS), metavar="A,B", help="default: %(default)s")
    parser.add_argument("--reference", default=",".join(REFERENCES), metavar="A,B", help="default: %(default)s")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument("--dry-run", action="store_true", help="say how many files are missing, and make none")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise InputError("--limit must be at least 1")
    metrics = results.names_of(args.metrics, "metric", METRICS)
    references = results.names_of(args.reference, "reference", REFERENCES)
    codecs = results.names_of(args.codecs, "codec")
    if args.dry_run:
        for name in set(codecs) & set(ANCHORS):  # what is not installed is to be known now, not once the jobs begin
            ANCHORS[name].encode(Image.new("RGB", (64, 64)), ANCHORS[name].settings[0])
        print(f"{len(missing(args.data, codecs, args.out, metrics, references, args.limit))} files to measure")
        return 0
    for name in autoencoder_of(codecs)[1] if "autoencoder" in references else ():
        print(
            f"live: {name} codes another autoencoder's latents and is held against the originals alone", file=sys.stderr
        )
    unreadable: dict[str, str] = {}
    points = evaluate(args.data, codecs, args.out, metrics, references, args.limit, unreadable)
    print(tables(points, metrics))
    print(f"\nevery point: {args.out / POINTS}")
    for reason in unreadable.values():
        print(f"live: left out: {reason}", file=sys.stderr)
    return int(bool(unreadable))


if __name__ == "__main__":
    raise SystemExit(run(main, "what was measured is kept"))
