"""``python -m testing.quickstart``: the whole chain on a few photos, with real files, a table and two figures.

Photos: ``--data``, else Kodak (``LIVE_KODAK``, or kodak/ once fetched), else photos that scikit-image ships. Each is
compressed at every embedded quality to a .live file, by live_plus and by glc, and beside it by JPEG and WebP; the files are
decoded from disk by another process and scored against the originals.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kodak.fetch import kodak_dir
from live.checkpoints import embedded_checkpoints
from live.command import Parser, run
from live.errors import InputError
from live.files import make_folder, picture_files, write_atomic
from live.media import read_picture
from scripts.sample_photos import write as write_samples

from .anchors import ANCHORS
from .comparison import DIALS, nearest_size, row
from .curves import Panel, rd_plot, side_by_side
from .evaluate import POINTS, evaluate, tables
from .measure import FILES, coded_file

CODEC, LOWEST = "live_plus", "glc"
PEERS = ("jpeg", "webp")
METRICS = ["psnr", "lpips_alex"]
LIMIT = 8
SHOWN = 3


def photos(out: Path, data: Path | None) -> Path:
    """The folder of photos to use; scikit-image's own go to OUT/scikit-image as PNG. InputError if there are none."""
    folder = data or kodak_dir()
    if folder:
        return folder
    return write_samples(out / "scikit-image")


def comparison(picture: Path, name: str, out: Path, points: pd.DataFrame) -> list[Panel]:
    """Original, GLC at its highest rate, and the others at about one size: the lowest of ours that JPEG can reach at all."""
    image = read_picture(picture)
    smallest = len(ANCHORS["jpeg"].encode(image, DIALS["jpeg"][0]))
    ours = points[(points["codec"] == CODEC) & (points["picture"] == name)].sort_values("bytes")
    reachable = ours[ours["bytes"] >= smallest]
    chosen = (reachable.head(1) if len(reachable) else ours.tail(1)).iloc[0]
    file = coded_file(out, CODEC, name, chosen["setting"]).read_bytes()
    files = {CODEC: file} | {peer: nearest_size(peer, image, len(file)) for peer in PEERS}
    lowest = points[(points["codec"] == LOWEST) & (points["picture"] == name)]
    if len(lowest):
        files = {LOWEST: coded_file(out, LOWEST, name, lowest["setting"].max()).read_bytes()} | files
    return row(image, name, files)


def quickstart(out: Path, data: Path | None = None, limit: int = LIMIT) -> str:
    """Do it all, into a fresh OUT/points.csv; returns the table. Raises LiveError."""
    if data is not None:
        picture_files(data)  # whose refusal comes before anything is made or removed
    make_folder(out)
    (out / POINTS).unlink(missing_ok=True)  # else retrained checkpoints would keep the old ones' figures
    folder = photos(out, data)
    ours = [name for name in (CODEC, LOWEST) if any(c.card["codec"] == name for c in embedded_checkpoints())]
    points = evaluate(folder, [*ours, *PEERS], out, METRICS, ["original"], limit)
    table = tables(points, METRICS)
    write_atomic(out / "table.md", (table + "\n").encode())
    rd_plot(points, METRICS, out / "rd.png")
    pictures = picture_files(folder)[: min(limit, SHOWN)]
    rows = [comparison(path, path.relative_to(folder).as_posix(), out, points) for path in pictures]
    side_by_side(rows, out / "side_by_side.png")
    return table


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.quickstart", description="Compress a few photos and compare, in one go.")
    parser.add_argument("--out", type=Path, default=Path("out/quickstart"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of photos; default: Kodak, else scikit-image's"
    )
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help="at most N photos; default: %(default)s")
    args = parser.parse_args(argv)
    if args.limit < 1:
        raise InputError("--limit must be at least 1")
    print(quickstart(args.out, args.data, args.limit))
    print(f"\nfiles   {args.out / FILES / CODEC}/*.live\npoints  {args.out / POINTS}\ntable   {args.out / 'table.md'}")
    print(f"figures {args.out / 'rd.png'}, {args.out / 'side_by_side.png'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
