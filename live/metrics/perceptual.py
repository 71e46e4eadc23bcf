"""LPIPS (Zhang et al. 2018, v0.1, linear heads) and DISTS (Ding et al. 2020) with weights that work offline."""

from __future__ import annotations

import warnings
from functools import lru_cache, partial

import lpips
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .weights import metric_weights

_VGG_STAGES = (2, 2, 3, 3, 3)
_DISTS_CHANNELS = (3, 64, 128, 256, 512, 512)
ALEX_STRIDE, ALEX_SMALLEST = 16, 31
"""The step in px of AlexNet's deepest maps, and the shortest side that it takes. Its first filters go by steps of 4 px: what
learns from LPIPS-Alex always from the same place writes patterns that are hidden from there, but from no other place."""
SHIFTS = ((1, 10), (6, 3), (11, 13), (12, 4))
"""The rows and columns left out where LPIPS-Alex is measured from other places: one of each remainder of its first filters'
steps, so that the last is in step with the first pixel there, though not in deeper maps."""


def _convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution with padding 1.

    Without gradients in float32 on a CPU by NNPACK, where it is there: Winograd's method takes a third of the time, and
    differs by 1e-5 of the largest value, which the fifth digit of a metric does not see.
    """
    fast = getattr(torch, "_nnpack_spatial_convolution", None)
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
    if fast and plain and torch.backends.nnpack.is_available() and not torch.is_autocast_enabled("cpu"):
        return fast(x, weight, bias, (1, 1), (1, 1))
    return F.conv2d(x, weight, bias, padding=1)


class LPIPS(nn.Module):
    """LPIPS v0.1 by the ``lpips`` package. backbone: "alex" (the default of the field's tables) or "vgg".

    forward(a, b): pictures (B, 3, H, W) in **[0, 1]** (mapped to the network's [-1, 1] here) -> (B,), 0 is identical;
    the same as ``distance(features(a), features(b))``, for where one picture is compared with several.
    """

    def __init__(self, backbone: str = "alex"):
        super().__init__()
        with warnings.catch_warnings():  # lpips calls torchvision as releases before 0.13 had it
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            self.net = lpips.LPIPS(net=backbone, pretrained=False, pnet_rand=True, verbose=False)
        weights = metric_weights(backbone)
        convolutions = [layer for layer in self.net.net.modules() if isinstance(layer, nn.Conv2d)]
        for index, layer in enumerate(convolutions):
            layer.weight.data.copy_(weights[f"conv{index}.weight"])
            layer.bias.data.copy_(weights[f"conv{index}.bias"])
            if backbone == "vgg":
                layer.forward = partial(_convolve, weight=layer.weight, bias=layer.bias)
        for index, head in enumerate(self.net.lins):
            head.model[-1].weight.data.copy_(weights[f"lin{index}"])
        self.eval().requires_grad_(False)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """The backbone's activations, each position normalised over its channels."""
        maps = self.net.net(self.net.scaling_layer(pictures * 2 - 1))
        return [lpips.normalize_tensor(each.float()) for each in maps]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """(B,) from the features of two sets of pictures."""
        with torch.autocast(a[0].device.type, enabled=False):  # which is for the backbone alone
            weighed = [head((x - y) ** 2) for head, x, y in zip(self.net.lins, a, b, strict=True)]
        return sum(maps.mean((2, 3)) for maps in weighed).flatten()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.distance(self.features(a), self.features(b))


class ShiftedLPIPS:
    """LPIPS-Alex from other places than the first pixel: the mean over pictures without their first rows and columns (``SHIFTS``).

    features, distance: as ``LPIPS`` has them, of pictures (B, 3, H, W) in [0, 1], 44 px a side or more.
    """

    def features(self, pictures: Tensor) -> list[Tensor]:
        """The backbone's activations, of one place after the other."""
        network = lpips_network("alex")
        return [each for top, left in SHIFTS for each in network.features(pictures[:, :, top:, left:])]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """(B,) from the features of two sets of pictures."""
        network, maps = lpips_network("alex"), len(a) // len(SHIFTS)
        parts = [slice(start, start + maps) for start in range(0, len(a), maps)]
        return torch.stack([network.distance(a[part], b[part]) for part in parts]).mean(0)


class DISTS(nn.Module):
    """DISTS over VGG-16 with L2 pooling. forward(a, b): (B, 3, H, W) in [0, 1] -> (B,), 0 is identical.

    The same as ``distance(features(a), features(b))``. Pictures are compared at their own size (the original script's
    optional reduction to 256 px is not applied).
    """

    def __init__(self) -> None:
        super().__init__()
        weights, heads = metric_weights("vgg"), metric_weights("dists")
        for name, tensor in weights.items():
            if name.startswith("conv"):
                self.register_buffer(name.replace(".", "_"), tensor)
        total = heads["alpha"].sum() + heads["beta"].sum()
        self.register_buffer("alpha", heads["alpha"] / total)
        self.register_buffer("beta", heads["beta"] / total)
        window = torch.hann_window(5, periodic=False)[1:-1]
        kernel = window[:, None] * window
        self.register_buffer("pool", (kernel / kernel.sum())[None, None])
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """The picture itself and the last activation of each of the five VGG stages."""
        maps, x, layer = [pictures], (pictures - self.mean) / self.std, 0
        for stage, depth in enumerate(_VGG_STAGES):
            if stage:
                squared = F.conv2d(x**2, self.pool.expand(x.shape[1], 1, 3, 3), stride=2, padding=1, groups=x.shape[1])
                x = (squared + 1e-12).sqrt()
            for _ in range(depth):
                weight, bias = getattr(self, f"conv{layer}_weight"), getattr(self, f"conv{layer}_bias")
                x = torch.relu(_convolve(x, weight, bias))
                layer += 1
            maps.append(x.float())  # under autocast the variances below still need float32
        return maps

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """(B,) from the features of two sets of pictures."""
        similarity = torch.zeros(a[0].shape[0], device=a[0].device)
        alphas, betas = self.alpha.split(_DISTS_CHANNELS, 1), self.beta.split(_DISTS_CHANNELS, 1)
        for x, y, alpha, beta in zip(a, b, alphas, betas, strict=True):
            x_mean, y_mean = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
            x_var, y_var = ((x - x_mean) ** 2).mean((2, 3), True), ((y - y_mean) ** 2).mean((2, 3), True)
            covariance = (x * y).mean((2, 3), True) - x_mean * y_mean
            texture = (2 * x_mean * y_mean + 1e-6) / (x_mean**2 + y_mean**2 + 1e-6)
            structure = (2 * covariance + 1e-6) / (x_var + y_var + 1e-6)
            similarity = similarity + (alpha * texture + beta * structure).sum((1, 2, 3))
        return 1 - similarity

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.distance(self.features(a), self.features(b))


def elsewhere(*pictures: Tensor) -> list[Tensor]:
    """Pictures (B, 3, H, W) without up to 15 of their first rows and columns, the same ones of all: as many as torch's random
    numbers say and LPIPS-Alex can spare. So the first rows and columns are seen the less often the nearer they are to the edge.
    """
    spare = (min(ALEX_STRIDE, max(size - ALEX_SMALLEST, 0) + 1) for size in pictures[0].shape[2:])
    top, left = (int(torch.randint(count, ())) for count in spare)
    return [each[:, :, top:, left:] for each in pictures]


@lru_cache
@torch.inference_mode(False)  # else what is first loaded to measure could not be trained with later
def lpips_network(backbone: str = "alex") -> LPIPS:
    """The LPIPS network of a backbone, loaded once a process."""
    return LPIPS(backbone)


@lru_cache
@torch.inference_mode(False)
def dists_network() -> DISTS:
    """The DISTS network, loaded once a process."""
    return DISTS().eval()
