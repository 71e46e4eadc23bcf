"""Pictures <-> latents at any size: an autoencoder applied by tiles, 8-bit pixels converted tile by tile.

Up to ``WHOLE`` cells (latent positions) everything is one pass. Above, an autoencoder with a bounded field of view goes by
tiles with halos, which changes nothing but the memory taken; one without goes by tiles that overlap, and how they lie is
part of the file, since other tiles would give another picture.
"""

from __future__ import annotations

import sys

from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .errors import DamagedFile
from .latents.base import Autoencoder
from .media import to_image, to_tensor
from .tiles import Box, Geometry, blended

WHOLE = 1 << 15
"""Cells that are always one pass: 2 megapixels at f = 8."""
UNBOUNDED = Geometry(tile=64, overlap=16)
"""Tiles for autoencoders that look at the whole picture: 512 px, as diffusers has them, a quarter shared."""


def encode_picture(
    autoencoder: Autoencoder, image: Image.Image, progress: bool = False
) -> tuple[Tensor, Geometry | None]:
    """RGB pictures of any size -> latents (1, c, ceil(H / f), ceil(W / f)), and the overlapping tiles if such were used.

    The right and bottom borders are replicated up to a multiple of the factor f. progress: of tiles, on stderr.
    """
    factor, tiled = autoencoder.factor, autoencoder.tiled_encode
    rows, columns = -(-image.height // factor), -(-image.width // factor)

    def read(box: Box) -> Tensor:
        top, bottom, left, right = (side * factor for side in box)
        inside = (left, top, min(right, image.width), min(bottom, image.height))
        part = image if inside == (0, 0, *image.size) else image.crop(inside)
        return F.pad(to_tensor(part), (0, right - inside[2], 0, bottom - inside[3]), mode="replicate")

    if rows * columns <= WHOLE:
        return autoencoder.encode(read(Box(0, rows, 0, columns))), None
    geometry = UNBOUNDED if None in (tiled.halo, autoencoder.tiled_decode.halo) else None
    latents: list[Tensor] = []

    def write(box: Box, tile: Tensor) -> None:
        if not latents:
            latents.append(tile.new_empty(1, autoencoder.channels, rows, columns))
        box.of(latents[0]).copy_(tile)
        bar.update(box.area)

    with _bar(rows * columns, progress, "encode") as bar:
        if geometry:
            blended(tiled, geometry, rows, columns, read, write)
        else:
            tiled.run(rows, columns, read, write)
    return latents[0], geometry


def _bar(cells: int, progress: bool, what: str) -> tqdm:
    return tqdm(
        total=cells, desc=what, unit="cell", unit_scale=True, disable=not progress, leave=False, file=sys.stderr
    )


def decode_picture(
    autoencoder: Autoencoder,
    latents: Tensor,
    size: tuple[int, int],
    geometry: Geometry | None,
    frame: bool = False,
    progress: bool = False,
) -> Image.Image:
    """Latents (1, c, h, w) -> RGB picture of ``size`` (width, height), at most (f w, f h), rounded to 8 bits.

    geometry: the overlapping tiles that ``encode_picture`` gave, if it did; DamagedFile where they are missing. frame: of a
    clip (``Autoencoder.decode_frame``). progress: of tiles, on stderr.
    """
    factor, tiled = autoencoder.factor, autoencoder.tiled_decode
    rows, columns = latents.shape[2:]
    image = Image.new("RGB", size)

    def write(box: Box, tile: Tensor) -> None:
        top, left = box.top * factor, box.left * factor
        image.paste(to_image(tile[:, :, : size[1] - top, : size[0] - left]), (left, top))
        bar.update(box.area)

    with _bar(rows * columns, progress and rows * columns > WHOLE, "decode") as bar:
        if geometry:
            blended(tiled, geometry, rows, columns, lambda box: box.of(latents), write)
        elif rows * columns <= WHOLE:
            decode = autoencoder.decode_frame if frame else autoencoder.decode
            write(Box(0, rows, 0, columns), decode(latents))
        elif tiled.halo is None:  # no encoder writes that, and the whole at once could take all memory
            raise DamagedFile("the file is damaged: it lacks the tiles that its autoencoder takes at this size")
        else:
            tiled.run(rows, columns, lambda box: box.of(latents), write)
    return image
