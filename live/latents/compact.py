"""The project's own autoencoders as plugs; ``compact`` (see ``compact_net`` for the network, training/ for its making)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..artefact import read_artefact
from ..config import parse
from ..errors import ConfigError, ModelError
from ..tiles import Network
from .base import Autoencoder, Statistics, identity_of
from .compact_net import FACTOR, CompactConfig, CompactNet
from .winograd import hastened

CONVENTION = "compact-1: pictures [-1,1], scale 1, shift 0"


class ExportedAutoencoder(Autoencoder):
    """An autoencoder that ``training`` exported (fp16 weights, run in float32, channels_last).

    convention: what the identity covers beside the weights; network, sizes: its module, with ``encoder`` and ``decoder``
    between pictures in [-1, 1] and latents, and the dataclass that it is built from.
    """

    convention: ClassVar[str]
    network: ClassVar[type[nn.Module]]
    sizes: ClassVar[type]

    def __init__(self, path: str | Path, name: str):
        tensors, card = read_artefact(path, "autoencoder")
        try:
            config = parse(self.sizes, card["model"])
        except (KeyError, TypeError, ConfigError):
            raise ModelError(f"{path} has no card of an autoencoder that this release reads") from None
        self.name, self.channels, self.card = name, config.channels, card
        self.identity, self.path = identity_of(tensors, self.convention), Path(path)
        if self.identity != card.get("identity"):
            raise ModelError(f"{path} is damaged: its weights do not have the hash that its card states")
        try:
            self.statistics = Statistics(tensors.pop("latent_mean").float(), tensors.pop("latent_std").float())
            self.net = self.network(config)
            self.net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"{path} does not fit its card: {str(error).splitlines()[0]}") from None
        self.net.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        return self.net.encoder((pictures * 2 - 1).contiguous(memory_format=torch.channels_last)).contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        return self._decoded(self.net.decoder, latents)

    def reconstruct(self, latents: Tensor) -> Tensor:
        return self.net.decoder(latents).float() / 2 + 0.5

    def to(self, device: torch.device) -> None:
        self.net.to(device)

    def decode_frame(self, latents: Tensor) -> Tensor:
        return self._decoded(self._fast_decoder, latents)

    @cached_property
    def _fast_decoder(self) -> nn.Module:
        return hastened(self.net.decoder)

    @torch.inference_mode()
    def _decoded(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        pictures = decoder(latents.contiguous(memory_format=torch.channels_last))
        return (pictures.mul_(0.5).add_(0.5)).clamp_(0, 1).contiguous()

    def networks(self) -> tuple[Network, Network]:
        return self.net.encoder, self.net.decoder


class CompactAutoencoder(ExportedAutoencoder):
    """``compact``: f = 8."""

    factor = FACTOR
    convention = CONVENTION
    network, sizes = CompactNet, CompactConfig
