"""The latent codecs and their stable numbers. A number is written in files and never given to another codec."""

from __future__ import annotations

from typing import Any

import torch

from ..config import parse
from ..errors import ModelError
from .base import Codec
from .glc import Glc, GlcConfig
from .paper import LivePaper, PaperConfig
from .plus import LivePlus, PlusConfig
from .video.glc_video import GlcVideo, GlcVideoConfig
from .video.live_video import LiveVideo, LiveVideoConfig

CODECS: dict[str, tuple[type, type]] = {
    LivePaper.name: (LivePaper, PaperConfig),  # id 1
    LivePlus.name: (LivePlus, PlusConfig),  # id 2
    Glc.name: (Glc, GlcConfig),  # id 3
    GlcVideo.name: (GlcVideo, GlcVideoConfig),  # id 4
    LiveVideo.name: (LiveVideo, LiveVideoConfig),  # id 5
}


def make_codec(name: str, config: dict[str, Any]) -> Codec:
    """An untrained codec by its name and the mapping of its sizes."""
    if name not in CODECS:
        raise ModelError(f"there is no codec {name!r}; known: {', '.join(CODECS)}")
    kind, config_kind = CODECS[name]
    return kind(parse(config_kind, config))


_DERIVED = ("_quantized_cdf", "_cdf_length", "_offset", ".bound", "scale_table", ".target", "scale_bound")


def state_of(codec: Codec) -> dict[str, torch.Tensor]:
    """A codec's weights as released: without the empty or derived buffers of CompressAI's entropy models."""
    assert isinstance(codec, torch.nn.Module)
    return without_derived(codec.state_dict())


def without_derived(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict without what is constant or built from the rest (bounds such as 1e-9 would not survive fp16)."""
    return {name: value for name, value in state.items() if not name.endswith(_DERIVED)}
