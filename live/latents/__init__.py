"""Autoencoders by name. Importing this is cheap: torch and diffusers load with the first autoencoder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..artefact import read_card
from ..errors import InputError, ModelError
from ..registry import embedded_dir

if TYPE_CHECKING:
    from .base import Autoencoder


@dataclass(frozen=True)
class Entry:
    """How a registered name is loaded. kind: "embedded", "diffusers" or "taesd"; source: file, hub id or folder name."""

    kind: str
    source: str
    input_range: str = "-1..1"


REGISTERED = {
    "compact": Entry("embedded", "compact.safetensors"),
    "glc-compact": Entry("embedded", "glc_compact_vq.safetensors"),
    "sd-vae-ft-mse": Entry("diffusers", "stabilityai/sd-vae-ft-mse"),
    # LIVE's reference feeds the same weights [0, 1]; its checkpoints depend on it.
    "sd-vae-ft-mse-01": Entry("diffusers", "stabilityai/sd-vae-ft-mse", input_range="0..1"),
    "sdxl-vae-fp16-fix": Entry("diffusers", "madebyollin/sdxl-vae-fp16-fix"),
    "taesd": Entry("diffusers", "madebyollin/taesd"),
    "taesdxl": Entry("diffusers", "madebyollin/taesdxl"),
    "taesd3": Entry("diffusers", "madebyollin/taesd3"),
    "taef1": Entry("diffusers", "madebyollin/taef1"),
    "taef2": Entry("taesd", "taef2"),
}

_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:/([\w.-]+))?")
_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def registered() -> list[tuple[str, str, str]]:
    """Every registered autoencoder: (name, kind, source)."""
    return [(name, entry.kind, _describe(entry)) for name, entry in REGISTERED.items()]


def load_autoencoder(name: str, dtype: str = "float32") -> Autoencoder:
    """The autoencoder that ``name`` stands for, frozen, on the CPU.

    name: a registered name; an existing ``.safetensors`` file of an exported autoencoder; an existing folder with a
    diffusers model (or a pipeline's ``vae``) or a TAESD pair of .pth files; or a hub id, "org/name" or
    "org/name/subfolder".
    A folder called like the source of a registered name below ``LIVE_VAE_DIR`` is used before the hub.
    dtype: "float32", "float16" or "bfloat16" (see GuardedNet). Raises ModelError or, for a dtype, InputError.
    """
    name = str(name)
    if name in REGISTERED:
        return _load_registered(name, dtype)
    path = Path(name)
    if path.is_dir():
        return _load_folder(path, name, dtype)
    if path.is_file() and path.suffix == ".safetensors":
        return _load_exported(path, name, dtype)
    if path.is_file():
        raise ModelError(f"{path} is not an autoencoder; give an exported .safetensors, or the folder of the model")
    hub = _HUB_ID.fullmatch(name)
    if hub and path.suffix not in _FILE_SUFFIXES:
        from .diffusers import DiffusersAutoencoder

        return DiffusersAutoencoder(hub[1], name, subfolder=hub[2], dtype=dtype)
    raise ModelError(
        f"no autoencoder is called {name}, and there is no such file or folder; known names: {', '.join(REGISTERED)}"
    )


def _load_registered(name: str, dtype: str) -> Autoencoder:
    entry = REGISTERED[name]
    if entry.kind == "embedded":
        return _load_exported(embedded_dir() / entry.source, name, dtype)
    root = os.environ.get("LIVE_VAE_DIR")
    local = Path(root) / entry.source.split("/")[-1] if root else None
    if entry.kind == "taesd":
        from .taesd import TinyAutoencoderPth

        if local is None or not local.is_dir():
            raise ModelError(
                f"{name} needs its .pth pair: set LIVE_VAE_DIR to the folder with {entry.source} in it, or give a path"
            )
        return TinyAutoencoderPth(local, name, dtype)
    from .diffusers import DiffusersAutoencoder

    source = local if local is not None and local.is_dir() else entry.source
    return DiffusersAutoencoder(source, name, dtype=dtype, input_range=entry.input_range)


def _load_folder(folder: Path, name: str, dtype: str) -> Autoencoder:
    if any((folder / config).is_file() for config in ("config.json", "vae/config.json")):
        from .diffusers import DiffusersAutoencoder

        return DiffusersAutoencoder(folder, name, dtype=dtype)
    if any(folder.glob("*_encoder.pth")):
        from .taesd import TinyAutoencoderPth

        return TinyAutoencoderPth(folder, name, dtype)
    raise ModelError(f"{folder} holds no autoencoder: neither config.json (diffusers) nor *_encoder.pth (TAESD)")


def _load_exported(path: Path, name: str, dtype: str) -> Autoencoder:
    if str(dtype).removeprefix("torch.") != "float32":
        raise InputError(f"{name} runs in float32 only; leave the precision out")
    if path.is_file() and read_card(path).get("network") == "vq":
        from .vq import VqAutoencoder

        return VqAutoencoder(path, name)
    from .compact import CompactAutoencoder

    return CompactAutoencoder(path, name)


def _describe(entry: Entry) -> str:
    if entry.kind == "embedded":
        return f"embedded ({entry.source})"
    if entry.kind == "taesd":
        return f"$LIVE_VAE_DIR/{entry.source}"
    return entry.source if entry.input_range == "-1..1" else f"{entry.source}, fed [0, 1]"
