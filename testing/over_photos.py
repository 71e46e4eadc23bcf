"""The command line of what measures our embedded codecs over a few photos and answers with a table or JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from live.command import Parser
from live.errors import InputError
from live.files import picture_files

from .quickstart import photos

Rows = list[dict[str, Any]]


def answer(
    argv: list[str] | None, name: str, about: str, measure: Callable[[list[Path]], Rows], table: Callable[[Rows], str]
) -> int:
    """Parse ``testing.NAME``'s arguments, measure the photos, print ``table`` of the rows or JSON; returns the exit code."""
    parser = Parser(prog=f"python -m testing.{name}", description=about)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of photos; default: Kodak, or scikit-image's")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N photos")
    parser.add_argument("--json", action="store_true", help=f"one JSON object, as in results/{name}.json")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise InputError("--limit must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        files = picture_files(photos(Path(folder), args.data))[: args.limit]
        rows = measure(files)
    print(json.dumps({"pictures": len(files), "rows": rows}, indent=1) if args.json else table(rows))
    return 0
