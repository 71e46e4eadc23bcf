"""The Inception network of FID and KID (Szegedy et al. 2015; Heusel et al. 2017) with its original weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.inception import (
    BasicConv2d,
    Inception3,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

from .weights import metric_weights

FEATURES = 2048
_SIDE = 299


class _Pooled:
    """A block of torchvision's whose last branch pools as the original network does: averages leave the padding out."""

    pool: Callable[[Tensor], Tensor] = staticmethod(
        partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    )

    def _forward(self, x: Tensor) -> list[Tensor]:
        *branches, _ = super()._forward(x)  # type: ignore[misc]
        return [*branches, self.branch_pool(self.pool(x))]  # type: ignore[attr-defined]


class _A(_Pooled, InceptionA):
    pass


class _C(_Pooled, InceptionC):
    pass


class _E(_Pooled, InceptionE):
    pass


class Inception(nn.Module):
    """FID's Inception up to its last pooling, by torchvision's architecture.

    forward(pictures): (N, 3, H, W) in **[0, 1]**, of any size -> (N, 2048) float32, not negative. The pictures are
    resized to 299 x 299 and mapped to the network's range as the original's graph does.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks = [BasicConv2d, _A, InceptionB, _C, InceptionD, _E, nn.Identity]
        self.net = Inception3(aux_logits=False, inception_blocks=blocks, init_weights=False)
        self.net.fc = nn.Identity()
        # The published weights were trained with a maximum here, which FID inherits.
        self.net.Mixed_7c.pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
        weights = metric_weights("inception")
        layers = [layer for layer in self.net.modules() if isinstance(layer, BasicConv2d)]
        for index, layer in enumerate(layers):
            layer.conv.weight.data = weights[f"conv{index}.weight"].view_as(layer.conv.weight)
            layer.bn.bias.data.copy_(weights[f"conv{index}.bias"])
            layer.bn.running_mean.copy_(weights[f"conv{index}.mean"])
            layer.bn.running_var.copy_(weights[f"conv{index}.var"])
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # saves a third of the time on a CPU

    def forward(self, pictures: Tensor) -> Tensor:
        return self.net((resize(pictures) * 255 - 128) / 128)


def resize(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 3, 299, 299), bilinear as TensorFlow 1 had it: position i is taken from i * H / 299.

    Not what libraries do by default, which align the pixels' centres, but what the published figures rest on.
    """
    rows, columns = (_interpolation(side).to(pictures) for side in pictures.shape[2:])
    return rows @ pictures @ columns.T


def _interpolation(side: int) -> Tensor:
    """The matrix (299, side) of a linear interpolation."""
    places = torch.arange(_SIDE) * (side / _SIDE)
    lower = places.long()
    upper, share = (lower + 1).clamp(max=side - 1), places - lower
    return (1 - share)[:, None] * F.one_hot(lower, side) + share[:, None] * F.one_hot(upper, side)


@lru_cache
def inception_network() -> Inception:
    """The network, loaded once a process; ModelError when its weights cannot be fetched."""
    return Inception()
