"""Our own codecs in the shape of the anchors, so that evaluation treats all alike."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from pathlib import Path

from PIL import Image
from torch import Tensor

import live
from live.api import DEFAULT_VAE
from live.artefact import read_card
from live.checkpoints import by_identity, embedded_checkpoints, holds_rates, load_codec
from live.container import unpack
from live.errors import InputError, ModelError
from live.latents import load_autoencoder
from live.latents.base import Autoencoder
from live.registry import embedded_dir

from .anchors import ANCHORS, Anchor

HEADER_BYTES = 31
"""Most bytes that the header and the checks of a .live file take (see ``live.container``)."""


SWEPT = "_swept"
"""Behind the name of a folder of checkpoints that is called like a known codec."""
REFINED, REFINED_NAME = 20, "{}_refined"
"""Steps of the search (``live.refine``) by which some codecs' files are also made, and how they are called then."""


class Stopwatch:
    """The seconds that autoencoders took since ``seconds`` was last set to None."""

    seconds: float | None = None

    def timed(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """The same function, its time added to the others'."""

        @wraps(function)
        def call(tensor: Tensor) -> Tensor:
            start = time.perf_counter()
            result = function(tensor)
            self.seconds = (self.seconds or 0.0) + time.perf_counter() - start
            return result

        return call


STOPWATCH = Stopwatch()


def _timed_autoencoder(checkpoint: Path) -> Autoencoder | None:
    """The autoencoder that a checkpoint names; loaded anew when the embedded weights have changed."""
    name = _autoencoder_name(checkpoint)
    return _timed(name, embedded_dir()) if name else None


@lru_cache(maxsize=2)
def _timed(name: str, embedded: Path) -> Autoencoder:
    autoencoder = load_autoencoder(name)
    autoencoder.encode = STOPWATCH.timed(autoencoder.encode)
    if type(autoencoder).decode_frame is not Autoencoder.decode_frame:  # else it is timed as decode
        autoencoder.decode_frame = STOPWATCH.timed(autoencoder.decode_frame)
    autoencoder.decode = STOPWATCH.timed(autoencoder.decode)
    return autoencoder


@lru_cache
def _autoencoder_name(checkpoint: Path) -> str | None:
    return read_card(checkpoint).get("autoencoder_name")


def _compress(image: Image.Image, checkpoint: Path, quality: float | None = None, refine: int = 0) -> bytes:
    return live.compress(image, quality, checkpoint=checkpoint, vae=_timed_autoencoder(checkpoint), refine=refine)


def _decompress(data: bytes, checkpoint: Path | None) -> Image.Image:
    vae = _timed_autoencoder(checkpoint or by_identity(unpack(data).model).path)
    return live.decompress(data, checkpoint=checkpoint, vae=vae)


class Ours(Anchor):
    """A codec of ours: one with weights. autoencoder: the name of the one whose latents it codes, None where cards do not say."""

    autoencoder: str | None

    def checkpoint(self, setting: float) -> Path:
        """The file of the weights that are used at a setting."""
        raise NotImplementedError

    def identity(self, setting: float) -> str:
        """Of these weights."""
        return read_card(self.checkpoint(setting))["identity"]

    def load(self, setting: float) -> None:
        """Have them in memory, so that no load is timed."""
        load_codec(self.checkpoint(setting))
        _timed_autoencoder(self.checkpoint(setting))


@dataclass(frozen=True)
class Embedded(Ours):
    """A codec of ours with its embedded checkpoints; the setting is the quality.

    Of a codec that holds several rates in one checkpoint: its anchors. codec: as cards call it; refine: steps of the search
    that its files are made by.
    """

    name: str
    label: str
    codec: str
    refine: int = 0
    suffix = ".live"
    container = HEADER_BYTES

    @property
    def _paths(self) -> dict[float, Path]:
        paths: dict[float, Path] = {}
        for path, card in ((c.path, c.card) for c in embedded_checkpoints() if c.card["codec"] == self.codec):
            if holds_rates(card):
                return dict.fromkeys(range(card["config"]["rates"]), path)
            paths[card["quality"]] = path
        return paths

    @property
    def settings(self) -> tuple[float, ...]:
        if not self._paths:
            raise ModelError(f"there are no embedded {self.codec} checkpoints; train them (see the README)")
        return tuple(self._paths)

    @property
    def autoencoder(self) -> str | None:
        return _autoencoder_name(self._paths[self.settings[0]])

    def checkpoint(self, setting: float) -> Path:
        return self._paths[setting]

    def encode(self, image: Image.Image, quality: float) -> bytes:
        path = self._paths[quality]
        return _compress(image, path, quality if holds_rates(read_card(path)) else None, self.refine)

    def decode(self, data: bytes) -> Image.Image:
        return _decompress(data, None)


class Checkpoints(Ours):
    """Every codec checkpoint in a folder as one codec named after the folder, with ``SWEPT`` behind the name of a known codec.

    The setting is the lambda that the card states, or its quality where it states none; of a codec that holds several
    rates in one checkpoint, the only one of its folder then: its anchors.
    """

    suffix = ".live"
    container = HEADER_BYTES

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        name = self.folder.resolve().name
        self.name = self.label = name + SWEPT if name in OURS | ANCHORS else name

    @cached_property
    def _paths(self) -> dict[float, tuple[Path, str, float | None]]:
        """Path, identity and, where the checkpoint holds several, the quality to ask for; by setting, ascending."""
        cards = [(path, read_card(path)) for path in sorted(self.folder.glob("*.safetensors"))]
        codecs = [(path, card) for path, card in cards if card.get("kind") == "codec"]
        if not codecs:
            raise InputError(f"no codec checkpoints in {self.folder}")
        several = [(path, card) for path, card in codecs if holds_rates(card)]
        if several and len(codecs) > 1:
            raise InputError(
                f"{self.folder} holds a codec of several rates beside others; give each a folder of its own"
            )
        if several:
            path, card = several[0]
            return {rate: (path, card["identity"], rate) for rate in range(card["config"]["rates"])}
        kinds = sorted({card["codec"] for _, card in codecs})
        if len(kinds) > 1:
            raise InputError(f"{self.folder} holds checkpoints of {' and '.join(kinds)}; give each a folder of its own")
        by_setting = sorted((card.get("lambda") or card["quality"], path, card["identity"]) for path, card in codecs)
        for (setting, path, _), (following, other, _) in itertools.pairwise(by_setting):
            if setting == following:
                raise InputError(
                    f"{path} and {other.name} are of one lambda ({setting:g}); keep one of them in the folder"
                )
        return {setting: (path, identity, None) for setting, path, identity in by_setting}

    @property
    def settings(self) -> tuple[float, ...]:
        return tuple(self._paths)

    @property
    def autoencoder(self) -> str | None:
        return _autoencoder_name(next(iter(self._paths.values()))[0])

    def checkpoint(self, setting: float) -> Path:
        return self._paths[setting][0]

    def encode(self, image: Image.Image, setting: float) -> bytes:
        path, _, quality = self._paths[setting]
        return _compress(image, path, quality)

    def decode(self, data: bytes) -> Image.Image:
        model = unpack(data).model.hex()
        path = next((path for path, identity, _ in self._paths.values() if identity.startswith(model)), None)
        return _decompress(data, path)


OURS: dict[str, Anchor] = {
    codec.name: codec
    for codec in (
        Embedded("live_plus", "LIVE+ (ours)", "live_plus"),
        Embedded(REFINED_NAME.format("live_plus"), "LIVE+ refined (ours)", "live_plus", REFINED),
        Embedded("live_paper", "LIVE as published, on compact", "live_paper"),
        Embedded("glc", "GLC (ours)", "glc"),
        Embedded(REFINED_NAME.format("glc"), "GLC refined (ours)", "glc", REFINED),
    )
}


def codec_of(name: str) -> Anchor:
    """A codec by name, ours or a peer's, or a folder of codec checkpoints; InputError naming the known ones."""
    known = OURS | ANCHORS
    if name in known:
        return known[name]
    if Path(name).is_dir():
        return Checkpoints(name)
    raise InputError(f"unknown codec {name}; choose from {', '.join(known)}, or give a folder of codec checkpoints")


def name_of(text: str) -> str:
    """How tables call a codec that the user names as they do, or by its folder of checkpoints."""
    return Checkpoints(text).name if "/" in text and Path(text).is_dir() else text


def autoencoder_of(codecs: list[str]) -> tuple[str, list[str]]:
    """The name of the autoencoder whose reconstructions are the second reference, that of the first of our codecs among these
    names, and the names of those that code another's latents."""
    ours = {name: codec for name in codecs if isinstance(codec := codec_of(name), Ours)}
    autoencoders = {name: codec.autoencoder or DEFAULT_VAE for name, codec in ours.items()}
    first = next(iter(autoencoders.values()), DEFAULT_VAE)
    return first, [name for name, autoencoder in autoencoders.items() if autoencoder != first]
