"""The same crop of a photo from files of about the same size, enlarged: what a rate looks like.

python -m testing.comparison --data DIR --bpp 0.15 --out FILE [--codecs live_plus,webp,heif,vvc] [--pictures A,B]

The first codec is one of ours: its setting of nearest rate is taken, and of each peer the file of nearest size, found
on the peer's own dial. The crop is the middle, so that no part is chosen for how it looks.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError
from live.files import check_output, picture_files
from live.media import read_picture

from .anchors import ANCHORS
from .curves import Panel, side_by_side
from .ours import codec_of
from .results import names_of
from .scoring import score

CODECS = "live_plus,webp,heif,vvc"
SHOWN = 3
CROP = (256, 208)
DIALS = {
    "jpeg": range(1, 96),
    "jpeg444": range(1, 96),
    "webp": [tenth / 10 for tenth in range(951)],
    "heif": range(0, 101),
    "avif": range(0, 101),
    "avif420": range(0, 101),
    "jxl": [tenth / 10 for tenth in range(150, 4, -1)],
    "vvc": range(63, 9, -1),
    "vtm": range(63, 9, -1),
}
"""Each peer's dial from low to high rate; those of WebP and JPEG XL need not be whole."""


def nearest_size(peer: str, image: Image.Image, size: int) -> bytes:
    """The file of a peer whose number of bytes is nearest to ``size``, found by halving the codec's dial."""
    encode = lru_cache(lambda quality: ANCHORS[peer].encode(image, quality))
    place = bisect_left(DIALS[peer], size, key=lambda quality: len(encode(quality)))
    candidates = map(encode, DIALS[peer][max(place - 1, 0) : place + 1])
    return min(candidates, key=lambda data: abs(len(data) - size))


def panel(codec: str, data: bytes, image: Image.Image) -> Panel:
    """A decoded file beside its original: the codec, its bytes and LPIPS written under it."""
    peer = codec_of(codec)
    decoded = peer.decode(data)
    distance = score(decoded, image, ["lpips_alex"])["lpips_alex"]
    shown = "" if distance is None else f", LPIPS-Alex {distance:.3f}"
    bpp = 8 * len(data) / (image.width * image.height)
    return Panel(decoded, f"{peer.label}\n{len(data)} bytes, {bpp:.3f} bpp{shown}")


def row(image: Image.Image, name: str, data: dict[str, bytes]) -> list[Panel]:
    """The original and what each codec's file decodes to."""
    original = Panel(image, f"{name}\noriginal, {image.width} x {image.height}")
    return [original, *(panel(codec, file, image) for codec, file in data.items())]


def files_at(image: Image.Image, ours: str, peers: list[str], bpp: float) -> dict[str, bytes]:
    """Our file of the rate nearest to ``bpp`` and each peer's of the size nearest to that file's."""
    codec, wanted = codec_of(ours), bpp * image.width * image.height / 8
    files = (codec.encode(image, setting) for setting in codec.settings)
    mine = min(files, key=lambda data: abs(len(data) - wanted))
    return {ours: mine} | {peer: nearest_size(peer, image, len(mine)) for peer in peers}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.comparison", description="Crops of photos from files of about one size.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument("--bpp", type=float, default=0.15, metavar="R", help="rate to compare at; default: %(default)s")
    parser.add_argument("--codecs", default=CODECS, metavar="A,B", help="ours first; default: %(default)s")
    parser.add_argument("--pictures", metavar="A,B", help=f"by file name; default: the first {SHOWN}")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="figure: .png or .jpg")
    args = parser.parse_args(argv)
    if args.out.suffix not in (".png", ".jpg"):
        raise InputError(f"no figure format is known for {args.out.name}; use .png or .jpg")
    if not 0 < args.bpp < 24:
        raise InputError("--bpp must be between 0 and 24")
    ours, *peers = names_of(args.codecs, "codec")
    if unknown := [peer for peer in peers if peer not in DIALS]:
        raise InputError(f"unknown peer {unknown[0]}; choose from {', '.join(DIALS)}")
    check_output(args.out, force=True)
    first = (path.relative_to(args.data).as_posix() for path in picture_files(args.data)[:SHOWN])
    wanted = names_of(args.pictures, "picture") if args.pictures else first
    images = {name: read_picture(args.data / name) for name in wanted}
    bar = tqdm(images.items(), desc="pictures", unit="picture")
    rows = [row(image, name, files_at(image, ours, peers, args.bpp)) for name, image in bar]
    side_by_side(rows, args.out, CROP)
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
