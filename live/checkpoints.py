"""Codec checkpoints: written at export, found by quality or by the identity a file names, loaded with checked hashes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artefact import read_artefact, read_card, write_artefact
from .container import CLIP_LEVELS, RATE_STEPS, check_quality, rate_bytes
from .errors import ConfigError, InputError, ModelError, UnknownModel
from .registry import embedded_dir

if TYPE_CHECKING:
    from torch import Tensor

    from .codecs.base import Codec
    from .container import LiveFile
    from .video.header import ClipHeader

DEFAULT_CODEC, DEFAULT_CLIP_CODEC = "live_plus", "live_video"
"""Of pictures, and of clips where the latter is embedded."""
ARITHMETIC = "int24"
"""How a card names the arithmetic of ``priors.exact24``; cards that name none are of ``priors.exact``."""
_UNITS = "units."


@dataclass(frozen=True)
class Checkpoint:
    """A codec checkpoint on disk and its card (codec, config, quality, autoencoder, identity, figures)."""

    path: Path
    card: dict[str, Any]


def embedded_checkpoints() -> list[Checkpoint]:
    """The codec checkpoints that come with the project, by codec and quality. Reads cards only, never torch."""
    found = [Checkpoint(path, read_card(path)) for path in _weights_in(embedded_dir())]
    codecs = [checkpoint for checkpoint in found if checkpoint.card.get("kind") == "codec"]
    return sorted(codecs, key=lambda c: (c.card["codec"], c.card["quality"]))


def _weights_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def clip_codec_name() -> str:
    """The codec of clips where none is asked for: the default one if it is embedded, else that of pictures, frame by frame."""
    embedded = any(c.card["codec"] == DEFAULT_CLIP_CODEC for c in embedded_checkpoints())
    return DEFAULT_CLIP_CODEC if embedded else DEFAULT_CODEC


def qualities(codec: str = DEFAULT_CODEC) -> list[int]:
    """The embedded qualities of a codec with one rate a checkpoint, ascending in rate."""
    return [c.card["quality"] for c in embedded_checkpoints() if c.card["codec"] == codec]


def by_quality(quality: float | None, codec: str = DEFAULT_CODEC) -> Checkpoint:
    """The embedded checkpoint of a codec at a quality, None: the middle one; InputError naming the known ones.

    A codec that serves several qualities by one checkpoint checks the quality itself.
    """
    known = {c.card["quality"]: c for c in embedded_checkpoints() if c.card["codec"] == codec}
    if not known:
        others = sorted({c.card["codec"] for c in embedded_checkpoints()} - {codec})
        choice = f"choose from {', '.join(others)}, or " if others else ""
        raise ModelError(f"there are no {codec} checkpoints in {embedded_dir()}; {choice}give one with --checkpoint")
    first = known[min(known)]
    if holds_rates(first.card) or "images" in first.card:
        return first
    if quality is None:
        return known[sorted(known)[len(known) // 2]]
    if not isinstance(quality, Real) or isinstance(quality, bool) or quality not in known:
        raise InputError(f"unknown quality {quality!r}; choose from {', '.join(map(str, known))}")
    return known[int(quality)]


def holds_rates(card: dict[str, Any]) -> bool:
    """Whether a codec's checkpoint serves several qualities, fractions too."""
    return card["config"].get("rates") is not None


def quality_range(card: dict[str, Any]) -> tuple[int, int]:
    """The lowest and the highest quality that a codec's checkpoint serves; of a codec of clips, those of its intra frames."""
    if holds_rates(card):
        return card["quality"], card["config"]["rates"] - 1
    if "images" not in card:
        return card["quality"], card["quality"]
    served = [c.card["quality"] for c in embedded_checkpoints() if c.card["identity"] in card["images"]]
    return min(served, default=0), max(served, default=0)


def quality_of(card: dict[str, Any], byte: int) -> float:
    """The quality that a file's byte stands for, given the card of its codec; DamagedFile when that does not hold it."""
    if not holds_rates(card):
        return byte
    highest = card["config"]["rates"] - 1
    if "images" in card:
        check_quality(byte, rate_bytes(CLIP_LEVELS))
        return round((byte - 1) * highest / CLIP_LEVELS, 3)
    check_quality(byte, rate_bytes(highest * RATE_STEPS))
    return (byte - 1) / RATE_STEPS


def by_identity(prefix: bytes, extra: Path | None = None) -> Checkpoint:
    """The checkpoint whose identity begins with ``prefix``: ``extra``, else an embedded one; UnknownModel otherwise."""
    if extra is None:
        candidates = embedded_checkpoints()
    elif extra.is_file():
        candidates = [Checkpoint(extra, read_card(extra))]
    else:
        raise ModelError(f"no checkpoint at {extra}")
    for candidate in candidates:
        if str(candidate.card.get("identity", "")).startswith(prefix.hex()):
            return candidate
    where = f"{extra} is another one" if extra is not None else "it does not come with this release"
    raise UnknownModel(
        f"the file needs the codec checkpoint {prefix.hex()} and {where}; "
        "give the checkpoint it was made with: --checkpoint PATH"
    )


def _images_of(path: Path, card: dict[str, Any]) -> list[Codec]:
    """The codecs of pictures that a codec of clips names, from beside its checkpoint or the embedded ones."""
    known = {}
    for file in (*_weights_in(path.parent), *_weights_in(embedded_dir())):
        try:
            known[read_card(file).get("identity")] = file
        except ModelError:  # what lies beside it need not be of ours
            continue
    for identity in card["images"]:
        if identity not in known:
            raise UnknownModel(
                f"{path} needs the codec checkpoint {identity[:16]} for intra frames, which is neither beside it nor embedded; "
                "put it into the same folder"
            )
    return [load_codec(known[identity]) for identity in card["images"]]


def facts_of(file: LiveFile | ClipHeader) -> dict[str, Any]:
    """What a file says of its codec and autoencoder, by the embedded cards where they know more. Never loads torch.

    DamagedFile when it states a quality that its codec does not have.
    """
    try:
        card = by_identity(file.model).card
    except UnknownModel:
        card = {}
    return {
        "codec": card.get("codec", f"id {file.codec_id}"),
        "quality": quality_of(card, file.quality) if card else file.quality,
        "checkpoint": file.model.hex(),
        "checkpoint_here": bool(card),
        "autoencoder": file.autoencoder.hex(),
        "autoencoder_name": card.get("autoencoder_name"),
    }


def conventions_of(card: dict[str, Any]) -> str:
    """What of a card changes how a file decodes, as the text that the identity covers beside the tensors."""
    kept = ("codec", "config", "factor", "latent_scale", "quality", "autoencoder")
    named = {key: card[key] for key in ("arithmetic", "images") if key in card}
    return json.dumps({key: card.get(key) for key in kept} | named, sort_keys=True)


def load_codec(path: Path) -> Codec:
    """A codec checkpoint with its frozen tables; ModelError when it is missing, damaged or was altered.

    Loaded once, and again when the file is another."""
    try:
        status = os.stat(path)
    except OSError:
        raise ModelError(f"no checkpoint at {path}") from None
    return codec_at(Path(path).absolute(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def codec_at(path: Path, *_state: int) -> Codec:
    """``load_codec`` of a file in a certain state, by which it is remembered."""
    import torch

    from .codecs import make_codec, state_of
    from .latents.base import identity_of
    from .priors.tables import Tables

    tensors, card = read_artefact(path, "codec")
    if identity_of(tensors, conventions_of(card)) != card.get("identity"):
        raise ModelError(f"{path} is damaged: it does not have the hash that its card states")
    if card.get("arithmetic") not in (None, ARITHMETIC):
        raise ModelError(f"{path} decodes in arithmetic {card['arithmetic']!r}, which this release lacks: update live")
    try:
        codec = make_codec(card["codec"], card["config"])
        codec.tables = {
            name: Tables.from_tensors(tensors, f"tables.{name}", rows) for name, rows in codec.table_rows.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ConfigError) as error:
        raise ModelError(f"{path} is not a codec checkpoint that this release reads: {error}") from None
    if "arithmetic" in card:
        names = [name for name in tensors if name.startswith(_UNITS)]
        codec.units = {name.removeprefix(_UNITS): tensors.pop(name) for name in names}
    if set(tensors) != set(state_of(codec)) or bool(codec.units) != ("arithmetic" in card):
        raise ModelError(f"{path} does not hold the weights that its card describes")
    try:
        codec.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit its card: {str(error).splitlines()[-1].strip()}") from None
    codec.card, codec.identity = card, card["identity"]
    codec.float().eval().requires_grad_(False)  # whatever torch's default type is
    codec.to(memory_format=torch.channels_last)  # a fifth faster on a CPU
    if "images" in card:
        codec.attach(_images_of(path, card))
    codec.make_exact()
    return codec


def export_codec(codec: Codec, path: Path, card: dict[str, Any], half: bool = True) -> Codec:
    """Freeze a trained codec into a checkpoint and return it as a decoder loads it.

    Weights go to float16 (``half``) first and the tables are built from what is then left. ``card`` adds to codec,
    config and identity: at least ``quality`` (0: none), ``autoencoder`` (identity) and ``autoencoder_name``. Those that a
    codec of clips is attached to must be embedded or lie beside it.
    """
    from .codecs import state_of
    from .codecs.video.base import VideoCodec
    from .latents.base import identity_of

    def stored() -> dict[str, Tensor]:
        return {name: value.half() if half else value for name, value in state_of(codec).items()}

    codec.load_state_dict({name: value.float() for name, value in stored().items()}, strict=False)
    codec.build_tables()
    state = stored()
    for name, tables in codec.tables.items():
        state |= tables.to_tensors(f"tables.{name}")
    state |= {f"{_UNITS}{name}": unit for name, unit in codec.units.items()}
    full = {"kind": "codec", "codec": codec.name, "config": asdict(codec.config), **card}
    if codec.units:
        full["arithmetic"] = ARITHMETIC
    if isinstance(codec, VideoCodec):
        full["images"] = [image.identity for image in codec.images]
    if not 0 <= full["quality"] <= 255:
        raise ModelError(f"quality {full['quality']} does not fit a file's one byte; choose 0 to 255")
    write_artefact(path, state, full | {"identity": identity_of(state, conventions_of(full))})
    return load_codec(path)
