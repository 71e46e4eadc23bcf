"""LIVE: pictures and diffusion latents as real, tiny files, by coding the latents of a generative autoencoder.

    import live
    data = live.compress("photo.jpg", quality=3)
    live.decompress(data).save("photo.png")

Importing ``live`` is cheap: torch is loaded by the first call that needs it.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from .errors import LiveError

if TYPE_CHECKING:
    from .api import autoencode, compress, compress_latents, decompress, decompress_latents, estimate_bits
    from .checkpoints import qualities
    from .video.api import clip_frames, compress_clip, decompress_clip
    from .video.latents import compress_clip_latents, decompress_clip_latents

# CompressAI imports a package that calls this at import: two lines on stderr that a user can do nothing about.
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)

__version__ = "0.1.0"
_API = ("autoencode", "compress", "compress_latents", "decompress", "decompress_latents", "estimate_bits")
_CLIPS = ("clip_frames", "compress_clip", "decompress_clip")
_CLIP_LATENTS = ("compress_clip_latents", "decompress_clip_latents")
__all__ = [
    "LiveError",
    "autoencode",
    "clip_frames",
    "compress",
    "compress_clip",
    "compress_clip_latents",
    "compress_latents",
    "decompress",
    "decompress_clip",
    "decompress_clip_latents",
    "decompress_latents",
    "estimate_bits",
    "qualities",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _API:
        from . import api

        return getattr(api, name)
    if name in _CLIPS:
        from .video import api as clips

        return getattr(clips, name)
    if name in _CLIP_LATENTS:
        from .video import latents

        return getattr(latents, name)
    if name == "qualities":
        from .checkpoints import qualities

        return qualities
    raise AttributeError(f"module 'live' has no attribute {name!r}")
