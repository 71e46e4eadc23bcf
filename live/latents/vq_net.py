"""The networks of the VQ autoencoders that GLC codes on, f = 16: the published VQGAN, and ``compact``'s grown by a level.

::

    picture ── compact's encoder ── unshuffle 2 ──┬── 1x1 ──────────────────────────(+)── latent (B,N,H/16,W/16)
                                                  └── conv ── blocks ── relu, conv ──┘
    latent ──┬── 1x1 ───────────────────────────(+)── shuffle 2 ── compact's decoder ── picture
             └── conv ── blocks ── relu, conv ───┘

The 1x1 convolutions start as principal components of ``compact``'s latents, two by two positions, and the residual branches
at zero: training sets out from ``compact``, less what the fewer channels cannot hold. The components are of latents in the
quantisation steps that ``compact`` learned for a low rate, so that they come in the order of what that rate is spent on,
and a step of about 1 suits each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..nets import conv, res_blocks, zero_init
from ..priors.quantiser import VectorQuantiser
from .compact_net import CompactConfig, CompactNet

FACTOR = 16


@dataclass(frozen=True)
class VqConfig:
    """channels: N of the latents; codebook: entries. inner: compact's sizes; widths and blocks of the level at H/16.

    published: the VQGAN of GLC instead, whose sizes are fixed but for ``width``, at the finest level.
    """

    channels: int = 256
    codebook: int = 16384
    inner: CompactConfig = field(default_factory=CompactConfig)
    encoder_width: int = 128
    encoder_blocks: int = 1
    decoder_width: int = 192
    decoder_blocks: int = 3
    published: bool = False
    width: int = 128


class Residual(nn.Module):
    """1x1 convolution + a branch of convolution, residual blocks, ReLU and a zero-initialised convolution."""

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int):
        super().__init__()
        self.base = conv(inputs, outputs, 1)
        self.branch = nn.Sequential(
            conv(inputs, width), res_blocks(width, blocks), nn.ReLU(), zero_init(conv(width, outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.branch(x)


class VqNet(nn.Module):
    """``encoder``: pictures (B, 3, H, W) in [-1, 1], sizes multiples of 16 -> latents (B, N, H/16, W/16); ``decoder``: back,
    not clamped; ``quantiser``: of latents, for training."""

    def __init__(self, config: VqConfig):
        super().__init__()
        make = _published if config.published else _grown
        self.encoder, self.decoder = make(config)
        self.quantiser = VectorQuantiser(config.codebook, config.channels)

    @torch.no_grad()
    def start_from(self, compact: CompactNet, gain: Tensor, pictures: list[Tensor]) -> None:
        """Take over ``compact``'s weights. gain (c,): quantisation steps to a unit of its latents; pictures (B, 3, H, W) in
        [-1, 1]: what the principal components are of."""
        self.encoder.inner.load_state_dict(compact.encoder.state_dict())
        self.decoder.inner.load_state_dict(compact.decoder.state_dict())
        scale = gain.repeat_interleave(4).double()  # pixel_unshuffle takes channels by channel, row, column
        columns = [nn.functional.pixel_unshuffle(compact.encoder(p), 2).transpose(0, 1).flatten(1) for p in pictures]
        vectors = torch.cat(columns, 1).double() * scale[:, None]
        mean, basis = vectors.mean(1), torch.linalg.eigh(vectors.cov())[1].flip(1)
        basis = basis[:, : self.encoder.level.base.out_channels]
        self.encoder.level.base.weight.copy_((basis.T * scale)[:, :, None, None])
        self.encoder.level.base.bias.copy_(-(mean @ basis))
        self.decoder.level.base.weight.copy_((basis / scale[:, None])[:, :, None, None])
        self.decoder.level.base.bias.copy_(mean / scale)


class _Encoder(nn.Module):
    def __init__(self, inner: nn.Module, level: nn.Module):
        super().__init__()
        self.inner, self.level = inner, level

    def forward(self, pictures: Tensor) -> Tensor:
        return self.level(nn.functional.pixel_unshuffle(self.inner(pictures), 2))


class _Decoder(nn.Module):
    def __init__(self, level: nn.Module, inner: nn.Module):
        super().__init__()
        self.level, self.inner = level, inner

    def forward(self, latents: Tensor) -> Tensor:
        return self.inner(nn.functional.pixel_shuffle(self.level(latents), 2))


def _grown(config: VqConfig) -> tuple[nn.Module, nn.Module]:
    compact, four = CompactNet(config.inner), 4 * config.inner.channels
    encoder = Residual(four, config.channels, config.encoder_width, config.encoder_blocks)
    decoder = Residual(config.channels, four, config.decoder_width, config.decoder_blocks)
    return _Encoder(compact.encoder, encoder), _Decoder(decoder, compact.decoder)


def _published(config: VqConfig) -> tuple[nn.Module, nn.Module]:
    """VQGAN: multipliers 1, 1, 2, 2, 4; 2 residual blocks a level in the encoder, 3 in the decoder; attention at H/16."""
    from diffusers import VQModel  # slow to import, and needed for the published shape alone

    widths = tuple(config.width * multiplier for multiplier in (1, 1, 2, 2, 4))
    model = VQModel(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=config.channels,
        num_vq_embeddings=config.codebook,
        vq_embed_dim=config.channels,
    )
    return nn.Sequential(model.encoder, model.quant_conv), nn.Sequential(model.post_quant_conv, model.decoder)
