"""What the rows of a results folder are of, in OUT/origins.json: the pictures or clips, the checkpoints and the autoencoder.

A table knows these by name, and two of them may have one: folders of the same name, a codec that was trained again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from live.errors import InputError
from live.files import make_folder, write_atomic
from live.registry import sha256

from .clip_codecs import ClipOurs
from .ours import Ours

FILE = "origins.json"


def of_files(dataset: str, folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The hash of every file that can be read, by the dataset's name and its own."""
    found = {}
    for path in files:
        with suppress(OSError):  # an evaluation names what it cannot read, and goes on
            found[f"{dataset}/{path.relative_to(folder).as_posix()}"] = sha256(path)
    return found


def of_codecs(codecs: Iterable[Any]) -> dict[str, str]:
    """The identity of the weights of ours among these codecs, by codec and setting."""
    ours = [codec for codec in codecs if isinstance(codec, Ours | ClipOurs)]
    return {f"{codec.name} at {setting:g}": codec.identity(setting) for codec in ours for setting in codec.settings}


def check(out: Path, origins: dict[str, str]) -> None:
    """InputError where OUT holds rows of another thing under one of these names."""
    kept = _kept(out)
    for name, identity in origins.items():
        if kept.get(name, identity) != identity:
            raise InputError(f"{out} holds results of another {name}; give another --out, or remove that folder")


def record(out: Path, origins: dict[str, str]) -> None:
    """Add to what OUT's rows are of. OutputError when it cannot be written."""
    make_folder(out)
    write_atomic(out / FILE, json.dumps(_kept(out) | origins, indent=1).encode())


def _kept(out: Path) -> dict[str, str]:
    """What is recorded; nothing for rows that were brought from elsewhere, or made before records were kept."""
    try:
        return dict(json.loads((out / FILE).read_text()))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError):
        raise InputError(f"{out / FILE} cannot be read; remove {out} to measure anew") from None
