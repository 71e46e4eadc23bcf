"""``python -m testing.sizes``: what a picture's size costs: bytes, seconds and peak memory at 1, 4, 16 and 33 megapixels.

Each picture is a mosaic of real photos, coded and decoded by the ``live`` command in processes of their own, whose peak
is the kernel's (``ru_maxrss``: the whole process, the interpreter and the libraries included).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from live.checkpoints import by_quality
from live.command import Parser, run
from live.errors import InputError, LiveError
from live.files import picture_files
from live.media import read_picture

from .quickstart import photos

SIZES = {1: (1280, 800), 4: (2560, 1600), 16: (5120, 3200), 33: (7680, 4320), 67: (10240, 6560), 268: (16384, 16384)}
"""Width and height by megapixels."""
USUAL = (1, 4, 16, 33)
LAUNCHER = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.call([sys.executable, "-m", "live", *sys.argv[1:]])
seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.exit(code)
"""
"""Between this process and the measured one: the kernel counts what a parent holds into the peak of its child."""


def mosaic(files: list[Path], size: tuple[int, int]) -> Image.Image:
    """A picture of ``size`` (width, height), filled row by row with photos at their own size, in turn."""
    picture, sources, top = Image.new("RGB", size), cycle(files), 0
    while top < size[1]:
        left, height = 0, size[1]
        while left < size[0]:
            photo = read_picture(next(sources))
            picture.paste(photo, (left, top))
            left, height = left + photo.width, min(height, photo.height)
        top += height
    return picture


def measured(arguments: list[str]) -> tuple[float, float, float]:
    """Run ``live`` with arguments in a process of its own: seconds, seconds of processor time, and peak memory in MiB."""
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise LiveError(f"live {arguments[0]} failed: {done.stderr.strip()[-300:]}")
    seconds, processor, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, processor, peak


def both_ways(
    source: Path, packed: Path, decoded: Path, compress: list[str], decompress: list[str]
) -> dict[str, float]:
    """``live compress`` of ``source`` and ``live decompress`` of what it made, with further arguments for each: seconds (``_s``),
    processor seconds (``_cpu_s``) and peak MiB (``_mib``) of either, and ``bytes``."""
    row: dict[str, float] = {}
    for verb, paths, more in (("compress", (source, packed), compress), ("decompress", (packed, decoded), decompress)):
        seconds, processor, peak = measured([verb, str(paths[0]), "-o", str(paths[1]), "--force", *more])
        row |= {f"{verb}_s": round(seconds, 2), f"{verb}_cpu_s": round(processor, 2), f"{verb}_mib": round(peak)}
    return row | {"bytes": packed.stat().st_size}


def measure(files: list[Path], size: tuple[int, int], quality: int | None, folder: Path) -> dict[str, Any]:
    """Both directions of one picture of ``size``, made in ``folder``: a row of the table."""
    source, packed, decoded = folder / "picture.png", folder / "picture.live", folder / "decoded.png"
    mosaic(files, size).save(source, compress_level=1)
    pixels = size[0] * size[1]
    limit = ["--max-pixels", str(pixels)]
    row: dict[str, Any] = {"width": size[0], "height": size[1], "megapixels": round(pixels / 1e6, 2)}
    row |= both_ways(source, packed, decoded, [*limit, *([] if quality is None else ["-q", str(quality)])], limit)
    came_back = read_picture(decoded, max_pixels=pixels).size
    if came_back != size:
        raise LiveError(f"{size} came back as {came_back}")
    return row | {"bpp": round(8 * row["bytes"] / pixels, 4)}


def markdown(rows: list[dict[str, Any]], titles: dict[str, str]) -> str:
    """The rows as Markdown: columns by key with their titles, the first one text, then bytes and ``both_ways``' figures."""
    of_verb = [(f"{verb}_{unit}", name) for verb in ("compress", "decompress") for unit, name in UNITS.items()]
    keys = [*titles, "bytes", *(key for key, _ in of_verb)]
    heads = [
        *titles.values(),
        "bytes",
        *(f"{key.removesuffix('_s')}: {name}" if name == "s" else name for key, name in of_verb),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(keys) - 1)]
    lines += ["| " + " | ".join(str(row[key]) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    named = [row | {"picture": f"{row['width']} x {row['height']}"} for row in rows]
    return markdown(named, {"picture": "picture", "megapixels": "megapixels"})


UNITS = {"s": "s", "cpu_s": "CPU s", "mib": "peak MiB"}
"""What is measured of a process, and what columns call it."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.sizes", description="What the size of a picture costs.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of photos; default: Kodak, or scikit-image's")
    parser.add_argument(
        "--sizes",
        default=",".join(map(str, USUAL)),
        metavar="LIST",
        help=f"megapixels, of {', '.join(map(str, SIZES))}",
    )
    parser.add_argument("-q", "--quality", type=int, metavar="N", help="embedded quality; default: the middle one")
    parser.add_argument("--json", action="store_true", help="one JSON object, as in results/sizes.json")
    args = parser.parse_args(argv)
    wanted = args.sizes.split(",")
    if not set(wanted) <= {str(size) for size in SIZES}:
        raise InputError(f"--sizes takes numbers out of {', '.join(map(str, SIZES))}, not {args.sizes}")
    weights = by_quality(args.quality).card["identity"][:16]
    with tempfile.TemporaryDirectory() as folder:
        files = picture_files(photos(Path(folder), args.data))
        bar = tqdm(wanted, desc="pictures", unit="picture")
        rows = [measure(files, SIZES[int(size)], args.quality, Path(folder)) for size in bar]
    facts = {"threads": os.environ.get("OMP_NUM_THREADS", "default"), "weights": weights, "rows": rows}
    print(json.dumps(facts, indent=1) if args.json else table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
