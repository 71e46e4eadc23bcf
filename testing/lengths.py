"""``python -m testing.lengths``: what a clip's length costs: bytes, seconds and peak memory at 100 and at 10,000 frames.

Each clip is a walk over real photos, coded and decoded by the ``live`` command, as it does by default, in processes of their own
(testing.sizes).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from live.checkpoints import by_quality
from live.command import Parser, run
from live.errors import InputError, LiveError
from live.files import picture_files
from live.video.container import ClipReader
from live.video.ffmpeg import binary

from .quickstart import photos
from .sizes import both_ways, markdown, mosaic

LENGTHS = (100, 10_000)
"""Numbers of frames."""
FRAME, SCENE = (64, 48), (512, 384)
"""Width and height in px of a frame, and of what its window moves over."""


def walk(scene: Path, count: int, output: Path) -> None:
    """A clip of ``count`` frames of FRAME as an mp4: a window that swings to and fro over ``scene``, a picture of SCENE."""
    free = [whole - part for whole, part in zip(SCENE, FRAME, strict=True)]
    path = f"crop={FRAME[0]}:{FRAME[1]}:{free[0] / 2}*(1+sin(n/61)):{free[1] / 2}*(1+sin(n/47))"
    source, kind = ["-loop", "1", "-i", str(scene)], ["-crf", "10", "-pix_fmt", "yuv420p"]
    command = [binary(), "-loglevel", "error", "-y", *source, "-vf", path, "-frames:v", str(count), *kind, str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LiveError(f"ffmpeg: {done.stderr.strip()[-300:]}")


def measure(scene: Path, count: int, codec: str, folder: Path) -> dict[str, Any]:
    """Both directions of one clip of ``count`` frames, made in ``folder``: a row of the table."""
    source, packed, decoded = folder / "clip.mp4", folder / "clip.live", folder / "decoded.mp4"
    walk(scene, count, source)
    row: dict[str, Any] = {"codec": codec, "frames": count, "width": FRAME[0], "height": FRAME[1]}
    row |= both_ways(source, packed, decoded, ["--codec", codec], [])
    with packed.open("rb") as file:
        if (held := ClipReader(file).count) != count:
            raise LiveError(f"{count} frames became {held}")
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    return markdown(rows, {"codec": "codec", "frames": "frames"})


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.lengths", description="What the length of a clip costs.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of photos; default: Kodak, or scikit-image's")
    parser.add_argument(
        "--frames", default=",".join(map(str, LENGTHS)), metavar="LIST", help="numbers of frames (%(default)s)"
    )
    parser.add_argument(
        "--codecs", default="live_video,glc_video", metavar="LIST", help="codecs of clips (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, as in results/lengths.json")
    args = parser.parse_args(argv)
    lengths = args.frames.split(",")
    if not all(length.isdecimal() and int(length) for length in lengths):
        raise InputError(f"--frames takes whole numbers from 1, with commas, not {args.frames}")
    codecs = args.codecs.split(",")
    weights = {codec: by_quality(None, codec).card["identity"][:16] for codec in codecs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = folder / "scene.png"
        mosaic(picture_files(photos(folder, args.data)), SCENE).save(scene)
        jobs = [(codec, int(length)) for codec in codecs for length in lengths]
        rows = [measure(scene, length, codec, folder) for codec, length in tqdm(jobs, desc="clips", unit="clip")]
    facts = {"threads": os.environ.get("OMP_NUM_THREADS", "default"), "weights": weights, "rows": rows}
    print(json.dumps(facts, indent=1) if args.json else table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
