"""The network of ``compact``, the project's own autoencoder: f = 8, c latent channels.

::

    picture (B,3,H,W) in [-1,1] ──┬─ unshuffle 4 ─ conv ─ blocks @H/4 ─ conv s2 ─ blocks @H/8 ─ conv ─┐
                                  └──────────── patch transform: 8x8 convolution, stride 8 ───────────(+)── latent (B,c,H/8,W/8)
    latent ──┬─ conv ─ blocks @H/8 ─ shuffle 2 ─ blocks @H/4 ─ conv ─ shuffle 4 ─┐
             └───── inverse patch transform: 8x8 transposed conv., stride 8 ────(+)── picture (B,3,H,W)

Where a third width is given, the middle of the blocks at H/8 holds a detour through blocks at H/16 (``Reach``).

The patch transform starts as the Karhunen-Loeve transform of 8x8 colour patches scaled to unit variance, and the
residual networks start at zero. So training sets out from a decorrelating transform with ordered channels, which is
already compressible, and not from noise; everything stays trainable.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..nets import conv, res_blocks, upsample2, zero_init

FACTOR = 8


@dataclass(frozen=True)
class CompactConfig:
    """Sizes: latent channels; widths at H/4, H/8 and (optional) H/16; residual blocks at each, encoder and decoder."""

    channels: int = 16
    encoder_widths: tuple[int, ...] = (64, 160)
    encoder_blocks: tuple[int, ...] = (1, 3)
    decoder_widths: tuple[int, ...] = (80, 192)
    decoder_blocks: tuple[int, ...] = (2, 4)

    def __post_init__(self) -> None:
        for side in ("encoder", "decoder"):
            widths, blocks = getattr(self, f"{side}_widths"), getattr(self, f"{side}_blocks")
            if len(widths) != len(blocks) or len(widths) not in (2, 3):
                raise ConfigError(
                    f"{side}_widths and {side}_blocks must be 2 or 3 numbers each, not {widths} and {blocks}"
                )


class Reach(nn.Module):
    """x + what blocks at half the size make of it, (B, C, H, W) -> (B, C, H, W); the identity at initialisation.

    Twice the receptive field for a quarter of the work a block. Odd sizes are padded by repeating the border.
    """

    def __init__(self, channels: int, width: int, blocks: int):
        super().__init__()
        self.down = conv(channels, width, stride=2)
        self.blocks = res_blocks(width, blocks)
        self.up = zero_init(conv(width, 4 * channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        return x + F.pixel_shuffle(self.up(torch.relu(self.blocks(self.down(even)))), 2)[:, :, :height, :width]


def eighth_blocks(widths: tuple[int, ...], blocks: tuple[int, ...]) -> nn.Sequential:
    """The residual blocks at H/8, with ``Reach`` in their middle where there is a third width."""
    layers = [(str(index), block) for index, block in enumerate(res_blocks(widths[1], blocks[1]))]
    if len(widths) > 2:
        layers.insert(len(layers) // 2, ("reach", Reach(widths[1], widths[2], blocks[2])))
    return nn.Sequential(OrderedDict(layers))


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1], H and W multiples of 8 -> latents (B, c, H/8, W/8)."""

    def __init__(self, config: CompactConfig):
        super().__init__()
        quarter, eighth = config.encoder_widths[:2]
        self.patch = nn.Conv2d(3, config.channels, FACTOR, FACTOR)
        self.residual = nn.Sequential(
            nn.PixelUnshuffle(4),
            conv(48, quarter),
            res_blocks(quarter, config.encoder_blocks[0]),
            conv(quarter, eighth, stride=2),
            eighth_blocks(config.encoder_widths, config.encoder_blocks),
            nn.ReLU(),
            zero_init(conv(eighth, config.channels)),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return self.patch(pictures) + self.residual(pictures)


class Decoder(nn.Module):
    """Latents (B, c, h, w) -> pictures (B, 3, 8h, 8w), nominally in [-1, 1], not clamped."""

    def __init__(self, config: CompactConfig):
        super().__init__()
        quarter, eighth = config.decoder_widths[:2]
        self.patch = nn.ConvTranspose2d(config.channels, 3, FACTOR, FACTOR)
        self.residual = nn.Sequential(
            conv(config.channels, eighth),
            eighth_blocks(config.decoder_widths, config.decoder_blocks),
            upsample2(eighth, quarter),
            res_blocks(quarter, config.decoder_blocks[0]),
            nn.ReLU(),
            zero_init(conv(quarter, 48)),
            nn.PixelShuffle(4),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return self.patch(latents) + self.residual(latents)


class CompactNet(nn.Module):
    """Encoder and decoder of ``compact``."""

    def __init__(self, config: CompactConfig):
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @torch.no_grad()
    def init_patch_transform(self, mean: Tensor, basis: Tensor, std: Tensor) -> None:
        """Set the patch transforms from principal components of 8x8 patches (``pixel_unshuffle`` order, [-1, 1]).

        mean: (192,), basis: (192, c) with orthonormal columns, std: (c,) standard deviation along each.
        """
        channels = basis.shape[1]
        forward = (basis / std).T.reshape(channels, 3, FACTOR, FACTOR)
        self.encoder.patch.weight.copy_(forward)
        self.encoder.patch.bias.copy_(-(mean @ basis) / std)
        self.decoder.patch.weight.copy_((basis * std).T.reshape(channels, 3, FACTOR, FACTOR))
        self.decoder.patch.bias.copy_(mean.reshape(3, -1).mean(1))


def patch_components(pictures: list[Tensor], channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of the 8x8 patches of pictures (3, H, W) in [-1, 1]: mean (192,), basis (192, c), std (c,)."""
    total, outer, count = torch.zeros(192, dtype=torch.float64), torch.zeros(192, 192, dtype=torch.float64), 0
    for picture in pictures:
        _, height, width = picture.shape
        cropped = picture[None, :, : height // FACTOR * FACTOR, : width // FACTOR * FACTOR]
        patches = F.pixel_unshuffle(cropped, FACTOR)[0].flatten(1).double()
        total += patches.sum(1)
        outer += patches @ patches.T
        count += patches.shape[1]
    mean = total / count
    values, vectors = torch.linalg.eigh(outer / count - mean[:, None] * mean)
    values, vectors = values.flip(0)[:channels], vectors.flip(1)[:, :channels]
    return mean.float(), vectors.float(), values.sqrt().float()
