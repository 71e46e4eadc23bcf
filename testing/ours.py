"""Our own codecs in the shape of the anchors, so that evaluation treats all alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

import live
from live.checkpoints import embedded_checkpoints
from live.container import unpack
from live.errors import InputError, ModelError

from .anchors import ANCHORS, Anchor

HEADER_BYTES = 31
"""Most bytes that the header and the checks of a .live file take (see ``live.container``)."""


@dataclass(frozen=True)
class Embedded:
    """A codec of ours with its embedded checkpoints; the setting is the quality."""

    name: str
    label: str
    suffix = ".live"
    container = HEADER_BYTES

    @property
    def _paths(self) -> dict[int, Path]:
        return {c.card["quality"]: c.path for c in embedded_checkpoints() if c.card["codec"] == self.name}

    @property
    def settings(self) -> tuple[int, ...]:
        if not self._paths:
            raise ModelError(f"there are no embedded {self.name} checkpoints; train them with sweep_lambda.sh")
        return tuple(self._paths)

    def encode(self, image: Image.Image, quality: int) -> bytes:
        return live.compress(image, checkpoint=self._paths[quality])

    def decode(self, data: bytes) -> Image.Image:
        return live.decompress(data)


class Checkpoints:
    """Every codec checkpoint in a folder as one codec named after the folder.

    The setting is the lambda that the card states, or its quality where it states none.
    """

    suffix = ".live"
    container = HEADER_BYTES

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.name = self.label = self.folder.resolve().name

    @cached_property
    def _paths(self) -> dict[float, tuple[Path, str]]:
        """Path and identity by setting, ascending."""
        from live.artefact import read_card

        cards = [(path, read_card(path)) for path in sorted(self.folder.glob("*.safetensors"))]
        codecs = [
            (card.get("lambda") or card["quality"], path, card["identity"])
            for path, card in cards
            if card.get("kind") == "codec"
        ]
        if not codecs:
            raise InputError(f"no codec checkpoints in {self.folder}")
        return {setting: (path, identity) for setting, path, identity in sorted(codecs)}

    @property
    def settings(self) -> tuple[float, ...]:
        return tuple(self._paths)

    def encode(self, image: Image.Image, setting: float) -> bytes:
        return live.compress(image, checkpoint=self._paths[setting][0])

    def decode(self, data: bytes) -> Image.Image:
        model = unpack(data).model.hex()
        path = next((path for path, identity in self._paths.values() if identity.startswith(model)), None)
        return live.decompress(data, checkpoint=path)


OURS: dict[str, Anchor] = {
    codec.name: codec
    for codec in (Embedded("live_plus", "LIVE+ (ours)"), Embedded("live_paper", "LIVE (as published)"))
}


def codec_of(name: str) -> Anchor:
    """A codec by name, ours or a peer's, or a folder of codec checkpoints; InputError naming the known ones."""
    known = OURS | ANCHORS
    if name in known:
        return known[name]
    if Path(name).is_dir():
        return Checkpoints(name)
    raise InputError(f"unknown codec {name}; choose from {', '.join(known)}, or give a folder of codec checkpoints")
