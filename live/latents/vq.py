"""The VQ autoencoders that GLC codes on, as a plug (see ``vq_net``). Latents are continuous: the codebook serves training."""

from __future__ import annotations

from .compact import ExportedAutoencoder
from .vq_net import FACTOR, VqConfig, VqNet


class VqAutoencoder(ExportedAutoencoder):
    """f = 16, the project's own or the published VQGAN."""

    factor = FACTOR
    convention = "vq-1: pictures [-1,1], scale 1, shift 0"
    network, sizes = VqNet, VqConfig
