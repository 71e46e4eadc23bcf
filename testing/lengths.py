"""``python -m testing.lengths``: what a clip's length costs: bytes, seconds and peak memory at 100 and at 10,000 frames.

Each clip is a walk over real photos, coded and decoded by the ``live`` command in processes of their own (testing.sizes), with
one intra frame.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from live.command import Parser, run
from live.errors import InputError, LiveError
from live.files import picture_files
from live.registry import embedded_dir
from live.video.container import ClipReader
from live.video.ffmpeg import binary

from .quickstart import photos
from .sizes import UNITS, measured, mosaic

LENGTHS = (100, 10_000)
FRAME = (64, 48)
SCENE = (512, 384)


def walk(scene: Path, count: int, output: Path) -> None:
    """A clip of ``count`` frames of FRAME, a window that moves over SCENE on a path that closes after some hundred frames."""
    free = [whole - part for whole, part in zip(SCENE, FRAME, strict=True)]
    path = f"crop={FRAME[0]}:{FRAME[1]}:{free[0] / 2}*(1+sin(n/61)):{free[1] / 2}*(1+sin(n/47))"
    command = [
        binary(),
        "-loglevel",
        "error",
        "-y",
        "-loop",
        "1",
        "-i",
        str(scene),
        "-vf",
        path,
        "-frames:v",
        str(count),
    ]
    done = subprocess.run([*command, "-crf", "10", "-pix_fmt", "yuv420p", str(output)], capture_output=True, text=True)
    if done.returncode:
        raise LiveError(f"ffmpeg: {done.stderr.strip()[-300:]}")


def measure(scene: Path, count: int, dial: list[str], folder: Path) -> dict[str, Any]:
    """Both directions of one clip of ``count`` frames, made in ``folder``: a row of the table."""
    source, packed, decoded = folder / "clip.mp4", folder / "clip.live", folder / "decoded.mp4"
    walk(scene, count, source)
    row: dict[str, Any] = {"frames": count, "width": FRAME[0], "height": FRAME[1]}
    for verb, arguments in (
        ("compress", [str(source), "-o", str(packed), *dial, "--force"]),
        ("decompress", [str(packed), "-o", str(decoded), "--force"]),
    ):
        seconds, processor, peak = measured([verb, *arguments])
        row |= {f"{verb}_s": round(seconds, 1), f"{verb}_cpu_s": round(processor, 1), f"{verb}_mib": round(peak)}
    with packed.open("rb") as file:
        if (held := ClipReader(file).count) != count:
            raise LiveError(f"{count} frames became {held}")
    return row | {"bytes": packed.stat().st_size}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| codec | frames | bytes | compress: s | CPU s | peak MiB | decompress: s | CPU s | peak MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    keys = ("frames", "bytes", *(f"{verb}_{unit}" for verb in ("compress", "decompress") for unit in UNITS))
    lines += [f"| {row['codec']} | " + " | ".join(str(row[key]) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.lengths", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of photos; default: Kodak, or scikit-image's")
    parser.add_argument("--frames", default=",".join(map(str, LENGTHS)), metavar="LIST", help="numbers of frames")
    parser.add_argument("--codecs", default="live_video,glc_video", metavar="LIST", help="codecs of clips")
    parser.add_argument("--json", action="store_true", help="one JSON object, as in results/lengths.json")
    args = parser.parse_args(argv)
    lengths = args.frames.split(",")
    if not all(length.isdecimal() and int(length) for length in lengths):
        raise InputError(f"--frames takes whole numbers from 1, with commas, not {args.frames}")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = folder / "scene.png"
        mosaic(picture_files(photos(folder, args.data)), SCENE).save(scene)
        for codec in args.codecs.split(","):
            rows += [{"codec": codec} | measure(scene, int(length), ["--codec", codec], folder) for length in lengths]
    facts = {"threads": os.environ.get("OMP_NUM_THREADS", "default"), "weights": embedded_dir().name, "rows": rows}
    print(json.dumps(facts, indent=1) if args.json else table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
