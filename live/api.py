"""Pixels or latents <-> bytes: the whole path, photo -> autoencoder -> codec -> range coder -> container, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from .checkpoints import DEFAULT_CODEC, by_identity, by_quality, load_codec, qualities
from .codecs.base import Codec, LatentCodec
from .coder import Count, Port, Read, Write
from .container import MAX_PIXELS, RATE_STEPS, TILES_TAG, LiveFile, check_size, pack, unpack
from .errors import DamagedFile, DecodeMismatch, InputError, ModelError, UnknownModel
from .latents import load_autoencoder
from .latents.base import Autoencoder
from .latents.given import as_latents, kind_of
from .media import as_picture
from .pictures import decode_picture, encode_picture
from .registry import embedded_dir
from .target import check_target, largest_within
from .tiles import Geometry

if TYPE_CHECKING:
    from .video.header import ClipHeader

DEFAULT_VAE, LOWEST_CODEC = "compact", "glc"
LARGEST_LATENT = 2.0**30
"""A file of larger ones (or of NaN), which its symbols can be forged to make, is refused: an autoencoder would overflow."""


def compress(
    picture: Any,
    quality: float | None = None,
    *,
    codec: str | None = None,
    checkpoint: str | Path | None = None,
    vae: str | Autoencoder | None = None,
    target_bpp: float | None = None,
    refine: int = 0,
    alpha: str | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> bytes:
    """A picture as the bytes of a LIVE file.

    picture: path, PIL image, numpy array (H, W, 3) or (H, W) (uint8, or float in [0, 1]) or torch tensor (3, H, W).
    quality: an embedded one (``live.qualities()``; the middle one by default); of ``codec`` "glc", for the lowest rates,
    0 to 3 and fractions. checkpoint: a codec checkpoint instead. target_bpp: instead of a quality, the highest whose file
    takes at most so many bits a pixel. refine: steps of a search for latents whose file is better (``live.refine``), which takes
    seconds a step and goes with a quality.
    vae: the autoencoder, by name or loaded; by default the one that the codec was trained on.
    alpha: a colour to flatten transparency over; without it transparent pictures are refused.
    max_pixels: larger pictures are refused. progress: of the search, and of large pictures, on stderr. Raises InputError or
    ModelError.
    """
    check_target(target_bpp, quality, refine)
    image = as_picture(picture, alpha, max_pixels)
    chosen = _picture_codec(quality, checkpoint, codec)
    autoencoder = _autoencoder(chosen, vae)
    latents, geometry = encode_picture(autoencoder, image, progress)
    if refine:
        from .refine import refined

        latents = refined(chosen, autoencoder, image, latents, refine, progress)
    sections = {TILES_TAG: geometry.pack()} if geometry else {}

    def packed(coder: LatentCodec) -> bytes:
        return _pack(coder, latents, image.size, autoencoder.identity, is_latents=False, sections=sections)

    if target_bpp is None:
        return packed(chosen)
    hint = "" if chosen.name == LOWEST_CODEC else f"; the codec of the lowest rates is {LOWEST_CODEC}"
    return largest_within(target_bpp * image.width * image.height / 8, _dial(chosen, checkpoint), packed, hint)


def _dial(codec: LatentCodec, checkpoint: str | Path | None) -> Sequence[Callable[[], LatentCodec]]:
    """Every quality that a codec can be had at, ascending in rate, each made when it is asked for."""
    if codec.highest is not None:
        return [partial(codec.at, step / RATE_STEPS) for step in range(codec.highest * RATE_STEPS + 1)]
    if checkpoint is not None:
        return [lambda: codec]
    return [partial(_picture_codec, quality, None, codec.name) for quality in qualities(codec.name)]


def decompress(
    data: bytes,
    *,
    checkpoint: str | Path | None = None,
    vae: str | Autoencoder | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> Image.Image:
    """The picture (PIL, RGB, 8 bit, original size) of a LIVE file's bytes.

    checkpoint and vae: needed only when the file was made with others than the embedded ones. progress: of large pictures, on
    stderr. Raises NotLiveFile,
    NewerFormat, UnknownModel, DamagedFile or DecodeMismatch; InputError when the file holds latents.
    """
    file = unpack(_bytes_of(data), max_pixels)
    if file.latents:
        raise InputError("the file holds latents, not a picture; use live.decompress_latents or: live latents unpack")
    codec = _picture_codec_of(file, checkpoint)
    autoencoder = _autoencoder(codec, vae, bytes(file.autoencoder))
    height, width = (math.ceil(size / autoencoder.factor) for size in (file.height, file.width))
    tiles = file.sections.get(TILES_TAG)
    geometry = Geometry.unpack(tiles) if tiles is not None else None
    latents, size = _read_latents(file, codec, height, width), (file.width, file.height)
    return decode_picture(autoencoder, latents, size, geometry, progress=progress)


def compress_latents(
    latents: Tensor,
    quality: float | None = None,
    *,
    codec: str | None = None,
    checkpoint: str | Path | None = None,
    vae: str | Autoencoder | None = None,
) -> bytes:
    """Latents as the bytes of a LIVE file, without touching pixels.

    latents: (1, c, h, w) or (c, h, w), any float type, in the autoencoder's diffusion convention (scale and shift
    applied, as a diffusion pipeline holds them before its VAE decodes). vae: if given, it must be the autoencoder that
    the codec was trained on. Raises InputError or ModelError.
    """
    chosen = _picture_codec(quality, checkpoint, codec)
    tensor, identity = as_latents(latents, chosen.channels), _identity_for(chosen, vae)
    size = (tensor.shape[3], tensor.shape[2])
    return _pack(chosen, tensor, size, identity, is_latents=True)


def decompress_latents(data: bytes, *, checkpoint: str | Path | None = None, max_pixels: int = MAX_PIXELS) -> Tensor:
    """The latents (1, c, h, w) float32 of a LIVE file; of a picture's file, the latents its autoencoder would decode."""
    file = unpack(_bytes_of(data), max_pixels)
    codec = _picture_codec_of(file, checkpoint)
    height, width, factor = file.height, file.width, codec.card.get("factor", 8)
    if file.latents:  # again, now that it is known what a position stands for: of f = 16, 256 pixels
        check_size(width, height, factor**2, len(data), max_pixels)
    else:
        height, width = math.ceil(height / factor), math.ceil(width / factor)
    return _read_latents(file, codec, height, width)


def estimate_bits(picture: Any, quality: float | None = None, *, checkpoint: str | Path | None = None) -> float:
    """The bits that the tables charge for a picture's symbols (Count port); the real file adds the header."""
    codec, port = _picture_codec(quality, checkpoint), Count()
    codec.encode(port, encode_picture(_autoencoder(codec, None), as_picture(picture))[0])
    return port.bits


def check_choice(
    quality: float | None,
    codec: str | None,
    checkpoint: str | Path | None,
    vae: str | None,
    target_bpp: float | None = None,
    refine: int = 0,
) -> None:
    """Load the codec and the autoencoder of a job before its first picture; InputError or ModelError if they do not do."""
    check_target(target_bpp, quality, refine)
    chosen = _picture_codec(quality, checkpoint, codec)
    _autoencoder(chosen, vae)
    if refine:
        from .refine import loss_of

        loss_of(chosen)


def autoencode(picture: Any, vae: str | Autoencoder = DEFAULT_VAE) -> Image.Image:
    """A picture after the autoencoder's round trip alone, nothing coded: the ceiling of any codec over it."""
    image = as_picture(picture)
    autoencoder = vae if isinstance(vae, Autoencoder) else _load_autoencoder(vae)
    latents, geometry = encode_picture(autoencoder, image)
    return decode_picture(autoencoder, latents, image.size, geometry)


def _bytes_of(data: Any) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InputError(f"give the bytes of a LIVE file, not {kind_of(data)}; of a path: Path(...).read_bytes()")
    return bytes(data)


def _pack(
    codec: LatentCodec,
    latents: Tensor,
    size: tuple[int, int],
    identity: str,
    is_latents: bool,
    sections: dict[int, bytes] | None = None,
) -> bytes:
    port = Write()
    codec.encode(port, latents)
    return pack(
        LiveFile(
            codec_id=codec.codec_id,
            latents=is_latents,
            model=bytes.fromhex(codec.identity)[:8],
            autoencoder=bytes.fromhex(identity)[:4].ljust(4, b"\0"),
            quality=codec.quality_byte,
            width=size[0],
            height=size[1],
            stream=port.stream(),
            symbols_crc=port.crc,
            sections=sections or {},
        )
    )


def _read_latents(file: LiveFile, codec: LatentCodec, height: int, width: int) -> Tensor:
    port: Port = Read(file.stream, codec.symbol_count(*codec.padded(height, width)))
    latents = codec.decode(port, height, width)
    check_decoded(latents, port.crc, file.symbols_crc)
    return latents


def check_decoded(latents: Tensor, crc: int, stated: int) -> None:
    """DecodeMismatch unless the symbols had the CRC that the file states; DamagedFile when latents are out of all bounds."""
    if crc != stated:
        raise DecodeMismatch(
            "the file decoded differently than it was encoded (symbol checksum); "
            "the file is whole, so report this with the output of: live info"
        )
    smallest, largest = latents.aminmax()
    if not -LARGEST_LATENT <= smallest <= largest <= LARGEST_LATENT:  # nor when one is not a number
        raise DamagedFile("the file is damaged: its latents are out of all bounds")


def _codec(quality: float | None, checkpoint: str | Path | None, name: str | None = None) -> Codec:
    if checkpoint is not None:
        if name is not None:
            raise InputError("give a codec's name or a checkpoint, not both")
        codec = load_codec(Path(checkpoint))
        if quality is not None and codec.highest is None:
            raise InputError("give a quality or a checkpoint, not both")
    else:
        codec = load_codec(by_quality(quality, name or DEFAULT_CODEC).path)
    if codec.highest is None:
        return codec
    return codec.at(codec.middle if quality is None else quality)


def _picture_codec(quality: float | None, checkpoint: str | Path | None, name: str | None = None) -> LatentCodec:
    codec = _codec(quality, checkpoint, name)
    if not isinstance(codec, LatentCodec):
        raise InputError(f"{codec.name} is a codec of clips; a picture or its latents take live_plus or glc")
    return codec


def _codec_of(file: LiveFile | ClipHeader, checkpoint: str | Path | None) -> Codec:
    codec = load_codec(by_identity(file.model, Path(checkpoint) if checkpoint is not None else None).path)
    if codec.codec_id != file.codec_id:
        raise DamagedFile("the file is damaged: its codec and its checkpoint do not belong together")
    return codec.at_byte(file.quality)


def _picture_codec_of(file: LiveFile, checkpoint: str | Path | None) -> LatentCodec:
    codec = _codec_of(file, checkpoint)
    if not isinstance(codec, LatentCodec):
        raise DamagedFile(f"the file is damaged: it holds no clip, and {codec.name} is a codec of clips")
    return codec


def _autoencoder(codec: Codec, vae: str | Autoencoder | None, prefix: bytes | None = None) -> Autoencoder:
    """The autoencoder to use with a codec, and for a file: the very one it names (``prefix``, 4 bytes)."""
    name = vae if vae is not None else codec.card.get("autoencoder_name")
    if name is None:
        raise InputError("this codec checkpoint does not name its autoencoder; give one with --vae")
    autoencoder = name if isinstance(name, Autoencoder) else _load_autoencoder(name)
    trained_on = codec.card.get("autoencoder")
    if prefix is None and trained_on not in (None, autoencoder.identity):
        raise ModelError(
            f"the codec was trained on the autoencoder {codec.card.get('autoencoder_name')} ({trained_on[:8]}), "
            f"and {autoencoder.name} is {autoencoder.identity[:8]}; choose a checkpoint trained on it"
        )
    if prefix is not None and bytes.fromhex(autoencoder.identity)[:4] != prefix:
        raise UnknownModel(
            f"the file needs the autoencoder {prefix.hex()}, and {autoencoder.name} is {autoencoder.identity[:8]}; "
            "give the one it was made with: --vae NAME"
        )
    if autoencoder.channels != codec.channels:
        raise ModelError(f"{autoencoder.name} has {autoencoder.channels} latent channels, the codec {codec.channels}")
    return autoencoder


def _identity_for(codec: Codec, vae: str | Autoencoder | None) -> str:
    """The identity that a file of latents names: that of ``vae``, which must be the codec's own; without, as its card has it."""
    return _autoencoder(codec, vae).identity if vae is not None else codec.card.get("autoencoder") or ""


def _load_autoencoder(name: str) -> Autoencoder:
    return _loaded(name, embedded_dir())


@lru_cache(maxsize=4)
def _loaded(name: str, embedded: Path) -> Autoencoder:
    """Kept by the embedded weights' folder as well, which ``LIVE_CHECKPOINTS`` may move within a process."""
    return load_autoencoder(name)
