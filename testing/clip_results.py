"""Every measured clip in one tidy CSV and every frame of it in another, and the only place that knows their columns.

python -m testing.clip_results --results OUT --out results     both tables of a folder of testing.clips, one row a key, rounded
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from live.command import Parser, run
from live.errors import InputError
from live.files import make_folder, write_atomic

from .results import columns_of, rows_of

CLIPS, FRAMES = "clips.csv", "clip_frames.csv"
CLIP_METRICS = ("psnr", "lpips_alex", "dists")
"""Of ``results.METRICS`` those that clips are scored by; flicker stands beside them."""


@dataclass(frozen=True)
class ClipRow:
    """A clip coded by one codec at one setting, as one file, against the original frames, 8-bit RGB.

    frames: how many were coded, from the first on; every: LPIPS and DISTS are means over each so many-th frame, the first
    and the last included; psnr: mean over all frames, in dB; bytes: of the file; bpp: 8 * bytes / (frames * width * height);
    intra_bytes: of the first frame, where known; flicker: see ``clip_scoring``; seconds of wall time for the whole clip,
    one run, and those of them that the autoencoder took, where a codec has one; fps: frames decoded a second.
    """

    dataset: str
    clip: str
    codec: str
    setting: float
    width: int
    height: int
    frames: int
    every: int
    bytes: int
    bpp: float
    intra_bytes: int | None
    psnr: float
    lpips_alex: float | None
    dists: float | None
    flicker: float | None
    encode_s: float
    decode_s: float
    encode_autoencoder_s: float | None
    decode_autoencoder_s: float | None
    fps: float


@dataclass(frozen=True)
class FrameRow:
    """A frame of a row of clips, counted from 0; bytes where known; what was not measured of it stays empty."""

    dataset: str
    clip: str
    codec: str
    setting: float
    frame: int
    bytes: int | None
    psnr: float
    flicker: float | None
    lpips_alex: float | None
    dists: float | None


CLIP_KEY = ["dataset", "clip", "codec", "setting"]
FRAME_KEY = [*CLIP_KEY, "frame"]
_DIGITS = dict.fromkeys((*CLIP_METRICS, "flicker"), 5)
_SECONDS = {name: 3 for name in columns_of(ClipRow) if name.endswith("_s") or name == "fps"}


def load_clips(path: Path) -> pd.DataFrame:
    """All rows of clips; InputError when the file is missing or is no such table."""
    return rows_of(path, ClipRow, CLIP_KEY, "testing.clips")


def load_frames(path: Path) -> pd.DataFrame:
    """All rows of frames; InputError when the file is missing or is no such table."""
    return rows_of(path, FrameRow, FRAME_KEY, "testing.clips")


def save(rows: pd.DataFrame, path: Path) -> None:
    """Write a whole table of either kind at once, rounded. OutputError when it cannot be written."""
    make_folder(path.parent)
    write_atomic(path, rows.round(_DIGITS | _SECONDS).to_csv(index=False).encode())


def curve(rows: pd.DataFrame, clip: str, codec: str) -> pd.DataFrame:
    """The rows of a codec on a clip, ascending in rate."""
    return rows[(rows["clip"] == clip) & (rows["codec"] == codec)].sort_values("bpp")


def require_codecs(rows: pd.DataFrame, codecs: list[str]) -> None:
    """InputError when one of these codecs has no rows."""
    for codec in codecs:
        if codec not in set(rows["codec"]):
            known = ", ".join(rows["codec"].unique()) or "none"
            raise InputError(f"the results hold no clips of {codec}; they hold {known}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.clip_results", description="Write both tables of clips anew, to be kept.")
    parser.add_argument("--results", type=Path, required=True, metavar="OUT", help="folder of testing.clips")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    clips, frames = load_clips(args.results / CLIPS), load_frames(args.results / FRAMES)
    frames = frames.merge(clips[CLIP_KEY])  # without what an interrupted run left
    save(clips, args.out / CLIPS)
    save(frames, args.out / FRAMES)
    print(f"{args.out}: {len(clips)} clips, {len(frames)} frames")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
