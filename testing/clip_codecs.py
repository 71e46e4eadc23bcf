"""Our codecs of clips in the shape of the anchors, real files through the library's own calls; and all by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from PIL import Image

import live
from live.checkpoints import Checkpoint, by_identity, embedded_checkpoints, holds_rates
from live.errors import InputError, ModelError
from live.video.container import ClipReader
from live.video.header import ClipHeader

from .clip_anchors import CLIP_ANCHORS, ClipPeer
from .ours import _timed_autoencoder


@dataclass(frozen=True)
class ClipOurs:
    """A codec of ours with its embedded checkpoints, as a ``ClipPeer``; the setting is the quality. codec: its
    registered name. scene_cuts: with intra frames where they take fewer bytes, not by the intra period alone."""

    name: str
    label: str
    codec: str
    scene_cuts: bool = False
    suffix = ".live"
    runs_programs = False

    @property
    def _checkpoints(self) -> list[Checkpoint]:
        found = [checkpoint for checkpoint in embedded_checkpoints() if checkpoint.card["codec"] == self.codec]
        if not found:
            raise ModelError(f"there are no embedded {self.codec} checkpoints; train them (see the README)")
        return found

    @property
    def settings(self) -> tuple[float, ...]:
        """The anchors of a codec of several rates; the qualities of the codecs of pictures that one of clips is over."""
        first = self._checkpoints[0].card
        if holds_rates(first):
            return tuple(range(first["config"]["rates"]))
        if "images" in first:
            return tuple(by_identity(bytes.fromhex(identity)).card["quality"] for identity in first["images"])
        return tuple(checkpoint.card["quality"] for checkpoint in self._checkpoints)

    def identity(self, setting: float) -> str:
        """Of the weights behind a setting."""
        checkpoints = self._checkpoints
        if len(checkpoints) == 1:
            return checkpoints[0].card["identity"]
        return next(c.card["identity"] for c in checkpoints if c.card["quality"] == setting)

    def encode(self, frames: Iterable[Image.Image], rate: Fraction, path: Path, setting: float) -> None:
        vae = _timed_autoencoder(self._checkpoints[0].path)
        live.compress_clip(frames, path, setting, codec=self.codec, vae=vae, fps=rate, scene_cuts=self.scene_cuts)

    def decode(self, path: Path) -> Iterator[Image.Image]:
        vae = _timed_autoencoder(by_identity(_header(path).model).path)
        with live.clip_frames(path, vae=vae) as frames:
            yield from frames

    def frame_bytes(self, path: Path) -> list[int] | None:
        with open(path, "rb") as file:
            return [frame.length for frame in ClipReader(file).frames()]


def _header(path: Path) -> ClipHeader:
    with open(path, "rb") as file:
        return ClipReader(file).header


CLIP_OURS: dict[str, ClipOurs] = {
    codec.name: codec
    for codec in (
        ClipOurs("live_video", "LIVE-video (ours)", "live_video"),
        ClipOurs("live_video_cuts", "LIVE-video, scene cuts (ours)", "live_video", scene_cuts=True),
        ClipOurs("glc_video", "GLC-video (ours)", "glc_video"),
        ClipOurs("glc_video_cuts", "GLC-video, scene cuts (ours)", "glc_video", scene_cuts=True),
        ClipOurs("live_plus", "LIVE+ frame by frame (ours)", "live_plus"),
        ClipOurs("glc", "GLC frame by frame (ours)", "glc"),
    )
}


def clip_codec_of(name: str) -> ClipPeer:
    """A codec of clips by name, ours or a peer's; InputError naming the known ones."""
    known = CLIP_OURS | CLIP_ANCHORS
    if name not in known:
        raise InputError(f"unknown codec of clips {name}; choose from {', '.join(known)}")
    return known[name]


def clip_label_of(name: str) -> str:
    """How figures call a codec of clips, also one of a table that is no longer known."""
    known = CLIP_OURS | CLIP_ANCHORS
    return known[name].label if name in known else name
