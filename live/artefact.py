"""Released weights: one safetensors file with its card in the header. No pickle, no optimiser."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError
from .files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

CARD_KEY = "live_card"


def write_artefact(path: str | Path, tensors: dict[str, Tensor], card: dict[str, Any]) -> None:
    """Write tensors and their card (JSON: kind, config, data, steps, figures) by rename."""
    from safetensors.torch import save

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(weights, {CARD_KEY: json.dumps(card, sort_keys=True)}))


def read_artefact(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and card of an artefact of the given kind ("autoencoder", "codec" or "rate_model"); ModelError in words otherwise."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ModelError(f"no checkpoint at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            card = _parsed((file.metadata() or {}).get(CARD_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a handle, not a dict
    except (SafetensorError, OSError, ValueError, RecursionError):
        raise ModelError(f"{path} is not a readable safetensors checkpoint") from None
    if card.get("kind") != kind:
        raise ModelError(f"{path} is not a LIVE {kind} checkpoint; export one with the training commands")
    return tensors, card


def read_card(path: str | Path) -> dict[str, Any]:
    """The card alone, without loading tensors or torch; ModelError when the file is not safetensors."""
    try:
        status = os.stat(path)
        return _parsed(_card_text(str(path), status.st_mtime_ns, status.st_size))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        raise ModelError(f"{path} is not a readable safetensors checkpoint") from None


def _parsed(text: str) -> dict[str, Any]:
    """A card's text as the object that it must be; ValueError or RecursionError for anything else."""
    card = json.loads(text)
    if not isinstance(card, dict):
        raise ValueError("a card must be an object")
    return card


@lru_cache(maxsize=64)
def _card_text(path: str, *_state: int) -> str:
    """The card as the file's header holds it; read again when the file is another: every file made looks up all checkpoints."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, 1 << 24)))
    return header.get("__metadata__", {}).get(CARD_KEY, "{}")
