"""FID and KID of decoded pictures against their originals, by patches (see ``live.metrics.distances``).

python -m testing.fid --reference DIR --decoded DIR [--patch 64|256] [--json]
python -m testing.fid --reference DIR --points OUT/points.csv --codec NAME [--setting S]    the files that evaluate kept

Published figures are by patches of 256 px, and of 64 px on Kodak, whose 24 pictures hold only 192 of 256 px (4152 of
64 px). Neither number says anything of one picture, and on so few pictures neither is a headline.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError
from live.files import PICTURE_SUFFIXES, picture_files
from live.media import read_picture, to_tensor
from live.metrics.distances import check_enough, frechet_distance, kernel_distance, patches
from live.metrics.inception import inception_network

from .measure import coded_file, decode_file
from .ours import codec_of
from .results import load, select

BATCH = 16
Read = Callable[[], Image.Image]


def features(pictures: list[Read], side: int, total: int, what: str) -> Tensor:
    """The Inception features (n, 2048) of all patches of the pictures, which are read one by one; total: n."""
    network, found = inception_network(), []
    with tqdm(total=total, desc=what, unit="patch") as bar:
        for read in pictures:
            for batch in patches(to_tensor(read()), side).split(BATCH):
                with torch.inference_mode():
                    found.append(network(batch))
                bar.update(len(batch))
    return torch.cat(found)


def count(pictures: list[Read], side: int) -> int:
    """How many patches the pictures have; InputError where these are too few."""
    sizes = [read().size for read in pictures]
    number = sum(len(patches(torch.empty(1, 3, height, width, device="meta"), side)) for width, height in sizes)
    check_enough(number, side)
    return number


def by_name(folder: Path) -> dict[str, Path]:
    """The pictures below a folder by their path there, without suffixes; InputError where two share it.

    Several suffixes at the end go: ``a.jpg`` is compressed to ``a.jpg.live``, and that decompressed to ``a.jpg.png``.
    """
    named: dict[str, Path] = {}
    for path in picture_files(folder):
        name = path.relative_to(folder).as_posix()
        while (suffix := Path(name).suffix).lower() in PICTURE_SUFFIXES:
            name = name.removesuffix(suffix)
        if name in named:
            raise InputError(f"{path} and {named[name]} have the same name; keep one")
        named[name] = path
    return named


def pairs(reference: Path, decoded: Path) -> list[tuple[Path, Path]]:
    """Originals and their decoded pictures, by name whatever the suffix; InputError where they are not the same ones."""
    originals, others = by_name(reference), by_name(decoded)
    for here, there, folder in ((originals, others, decoded), (others, originals, reference)):
        if missing := sorted(set(here) - set(there)):
            raise InputError(f"{here[missing[0]]} has no counterpart of its name in {folder}")
    for name in originals:
        sizes = [read_picture(path).size for path in (originals[name], others[name])]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{others[name]} is {sizes[1][0]} x {sizes[1][1]}, its original {sizes[0][0]} x {sizes[0][1]}"
            )
    return [(path, others[name]) for name, path in originals.items()]


def kept(args: Namespace) -> tuple[list[Path], list[tuple[dict[str, Any], list[Read]]]]:
    """The originals that an evaluation coded at all settings of a codec, and for each setting facts and decoded pictures."""
    peer, out = codec_of(args.codec), args.points.parent
    points = select(load(args.points), [peer.name], "original", args.reference.resolve().name)
    names, settings = list(points["picture"].unique()), sorted(points["setting"].unique())
    if args.setting is not None and args.setting not in settings:
        held = ", ".join(f"{setting:g}" for setting in settings)
        raise InputError(f"the results hold no setting {args.setting:g} of {peer.name}; they hold {held}")
    sets = []
    for setting in settings if args.setting is None else [args.setting]:
        files = [coded_file(out, args.codec, name, setting) for name in names]
        if gone := [path for path in files if not path.is_file()]:
            raise InputError(
                f"{gone[0]} is not there; the files lie beside the points.csv that testing.evaluate wrote with them"
            )
        bpp = points.loc[points["setting"] == setting, "bpp"].mean()
        facts = {"codec": peer.name, "setting": float(setting), "bpp": round(float(bpp), 5)}
        sets.append((facts, [partial(_decoded, args.codec, setting, path) for path in files]))
    return [args.reference / name for name in names], sets


def _decoded(codec: str, setting: float, path: Path) -> Image.Image:
    return decode_file(codec, setting, path)[0]


def rows(args: Namespace) -> Iterator[dict[str, Any]]:
    """One row a set of decoded pictures: its facts, fid, kid, kid_std, patches, and their side in px."""
    if args.points:
        originals, sets = kept(args)
    else:
        couples = pairs(args.reference, args.decoded)
        originals = [original for original, _ in couples]
        sets = [({}, [partial(read_picture, other) for _, other in couples])]
    reference = [partial(read_picture, path) for path in originals]
    number = count(reference, args.patch)
    ours = features(reference, args.patch, number, "original")
    for facts, decoded in sets:
        theirs = features(decoded, args.patch, number, "decoded")
        kid, deviation = kernel_distance(ours, theirs)
        figures = {"fid": frechet_distance(ours, theirs), "kid": kid, "kid_std": deviation}
        rounded = {name: round(value, 6) for name, value in figures.items()}
        yield facts | rounded | {"patches": number, "patch": args.patch}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.fid", description="FID and KID of decoded pictures, by patches.")
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR", help="folder of the originals")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--decoded", type=Path, metavar="DIR", help="folder of the decoded pictures, of the same names")
    source.add_argument("--points", type=Path, metavar="CSV", help="results of testing.evaluate; its files are decoded")
    parser.add_argument("--codec", metavar="NAME", help="with --points: as testing.evaluate was given it")
    parser.add_argument("--setting", type=float, metavar="S", help="with --points: of the codec; default: all of them")
    parser.add_argument("--patch", type=int, choices=(64, 256), default=256, help="side in px; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args(argv)
    if bool(args.points) != bool(args.codec) or (args.decoded and args.setting is not None):
        raise InputError("--points goes with --codec, and --setting with both")
    for row in rows(args):
        print(json.dumps(row) if args.json else "  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
