"""``python -m kodak.fetch [--out DIR] [--from DIR]``: the 24 Kodak photos, each checked against its SHA-256.

Photos already there and right are kept, wrong ones are replaced, and nothing half-downloaded is ever left behind.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError, OutputError
from live.files import make_folder, read_bytes, write_atomic
from live.registry import sha256

BASE_URL = "https://r0k.us/graphics/kodak/kodak/"
HERE = Path(__file__).resolve().parent
SHA256 = {
    "kodim01.png": "a56e27cbf5f843c048b6af1d6e090760e9c92fadba88b7dee0205918a37523bd",
    "kodim02.png": "133d50ad0f2cda48fef30e251f433fa1a98ee08c0f2d07cdab9462e876ccae5d",
    "kodim03.png": "e25ca1ff2f0c0cb5fdfd5f9b0a0bb21ac4c3de3c84a67f35b09a85d3306249db",
    "kodim04.png": "1e079e4adc03524e53f1394a2a8e1c5995f0f70a5aec125b12fa3fdbe33cba37",
    "kodim05.png": "10349e963c5c813d327852f82c1795fa4148d69fedffc4c589bee458e3ac3d53",
    "kodim06.png": "363510303b715d4cbc384e1ce227e466b613a09e1b71ae985882bf8e7fbd9b18",
    "kodim07.png": "a74d606cef80e70a04fb983364f79fb954ad46665edf2a8b7355ce81adfa7998",
    "kodim08.png": "e3cfc1371a5643c7f8cdf1bd565c172abce6aa26e3f2fdce74cbf7c32364089d",
    "kodim09.png": "a0c72eb70826619305388ed9c0f8aa8f491b234155d62673cda270d7021149a2",
    "kodim10.png": "28fb615837dc8e66fc92c40158cac80b57f07d0ce77d22576aa85ac9e2787336",
    "kodim11.png": "7936814b58b5387fce2e4e2488b4ec830dadd95fa9520f358ddb30990b50f2b6",
    "kodim12.png": "d78c37c2f04f23761ed2367dd77e2db584ddd4c3950833fecf89f199a8126980",
    "kodim13.png": "bc34a3ce58dea09dce1704c997171602de90cb34d0c8503a988b77f473d39b08",
    "kodim14.png": "55a94550ff18f3246c4074fd32b77b0c74447c26b6ad274d564d999c0450ba6e",
    "kodim15.png": "d36d884e29bce92adea11de456be4e9a5815e79c112d47453a34a6f6edc84e63",
    "kodim16.png": "a89c7268ccd4718ba424a99fc4643c572cf692ca6eae887185ceb4e9f11d2e54",
    "kodim17.png": "37afcc89fbdcb76d9518e04b2fc011027e2f4cd14b3b2f83cefd721641a47c5b",
    "kodim18.png": "5deb2d91e347cbdcc0d8a595daa8877de0772c9cdbce4956a2f45a0f97648a47",
    "kodim19.png": "8f12d577f9ca36f384f82dec11ed8a4e12a27bd5a32ef117b9bcaf4fe4d0606f",
    "kodim20.png": "3b46c71e3b92a563820ba32936be8330c586c41f938efd94be938386aae4328a",
    "kodim21.png": "ac958597c82073f6bb65129c68f72b651db5b9efd82e11547d07350214bc268b",
    "kodim22.png": "37782d92a1cfb36ff586047d5c0a2fa75e042fd0b58f90f866b4ab91349c4e03",
    "kodim23.png": "2ed596d7de74cc43d23add4c116763f49d7b5a78b21444fe84caece531ee933b",
    "kodim24.png": "ac96f39dacff2ec303ddb8a7eb72d59f77af2b491144926335938338ee63473d",
}


def kodak_dir() -> Path | None:
    """The folder of the photos: ``LIVE_KODAK`` (InputError if it is none), else this one once complete, else None."""
    if os.environ.get("LIVE_KODAK"):
        folder = Path(os.environ["LIVE_KODAK"])
        if not folder.is_dir():
            raise InputError(f"LIVE_KODAK names {folder}, which is not a folder; correct it or unset it")
        return folder
    return HERE if all((HERE / name).is_file() for name in SHA256) else None


def fetch(out: Path, source: Path | None = None) -> list[str]:
    """Make ``out`` hold all 24 photos, downloaded or, with ``source``, copied from that folder.

    Returns the names that were written; those already right are left alone. InputError when a photo cannot be had or
    has another hash than expected, OutputError when ``out`` cannot be written.
    """
    make_folder(out)
    missing = [name for name in SHA256 if not _is_right(out / name)]
    for name in tqdm(missing, desc="kodak", unit="photo", file=sys.stderr, disable=not missing):
        if source is None:
            _download(name, out)
        else:
            _copy(source / name, out / name)
    return missing


def _is_right(path: Path) -> bool:
    return path.is_file() and sha256(path) == SHA256[path.name]


def _copy(source: Path, target: Path) -> None:
    data = read_bytes(source)
    if sha256(data) != SHA256[target.name]:
        raise InputError(f"{source} is not the original {target.name} (its SHA-256 differs); use another source")
    write_atomic(target, data)


def _download(name: str, out: Path) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.ERROR)
    try:
        pooch.create(path=out, base_url=BASE_URL, registry=SHA256, retry_if_failed=1).fetch(name)
    except requests.exceptions.RequestException:
        raise InputError(
            f"cannot download {name} from {BASE_URL}; connect and run again, or copy from a folder with --from DIR"
        ) from None
    except ValueError:  # pooch: the hash differs
        raise InputError(f"{BASE_URL}{name} is not the original photo (its SHA-256 differs); not kept") from None
    except OSError as error:
        raise OutputError(f"cannot write {out / name}: {error.strerror}") from None


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m kodak.fetch", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where to put them; default: kodak/")
    parser.add_argument("--from", type=Path, dest="source", metavar="DIR", help="copy from this folder, no network")
    args = parser.parse_args(argv)
    written = fetch(args.out, args.source)
    print(f"{len(SHA256)} photos in {args.out}, {len(written)} of them new")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main, "run again to go on"))
