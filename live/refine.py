"""A search by the encoder: one picture's latents are moved until its file is better by the loss that the codec was trained with.

The decoder and the format know nothing of it. Source: Campos et al. 2019, "Content Adaptive Optimization for Neural Image
Compression"; gradients pass the rounding straight through, and the rate is that of noise, as in training. Pictures that do not
fit into one window are searched window by window, each with a margin that stays as it is.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from compressai.entropy_models import EntropyModel
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .codecs.base import LatentCodec
from .errors import InputError
from .latents.base import Autoencoder
from .media import to_tensor
from .metrics.perceptual import dists_network, elsewhere, lpips_network
from .nets import bfloat16
from .tiles import Box

STEP = 0.012
"""How far a value moves in the first step, in standard deviations of its channel; later ones are shorter, along a cosine."""
WINDOW, MARGIN = 768, 64
"""Pixels along a window, and along what it sees of its neighbours."""
VGG_SIDE = 224
"""Pixels along the part of the window, another in each step, that LPIPS-VGG and DISTS see: VGG-16 takes most of the time."""
LEAST_SIDE = 64
"""What AlexNet and VGG-16 can do with; smaller pictures are extended."""
TERMS = ("l1", "mse", "alex", "vgg", "dists")
_SEARCHING = Lock()
"""A search takes torch's random numbers, which are the process's; a folder job makes its pictures one by one then."""


def refined(
    codec: LatentCodec,
    autoencoder: Autoencoder,
    image: Image.Image,
    latents: Tensor,
    steps: int,
    progress: bool = False,
) -> Tensor:
    """Latents (1, c, ceil(H / f), ceil(W / f)) to be coded instead of ``latents``, those of ``image``, after so many steps.

    The loss is the one of the codec's card: D + bpp / lambda, with D's weights of the last phase; LPIPS-Alex looks from another
    place in each step, as in training. The same pictures give the same latents, up to the rounding of floating point. progress:
    on stderr. Raises InputError for a codec that was not trained on pictures, and ModelError where the metrics' weights cannot
    be had.
    """
    weights, trade = loss_of(codec)
    factor, rows, columns = autoencoder.factor, *latents.shape[2:]
    side, margin = (-(-size // factor // codec.stride) * codec.stride for size in (WINDOW, MARGIN))
    corners = [(top, left) for top in range(0, rows, side) for left in range(0, columns, side)]
    with (
        _SEARCHING,
        _noisy(codec),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.random.fork_rng(devices=[]),
        tqdm(total=len(corners) * steps, unit="step", disable=not progress, file=sys.stderr) as bar,
    ):
        torch.manual_seed(0)
        latents = latents.clone()  # out of inference mode
        for top, left in corners:
            inner = Box(top, min(top + side, rows), left, min(left + side, columns))
            window = inner.grown(margin, rows, columns)
            part = image.crop(
                (window.left * factor, window.top * factor,
                 min(window.right * factor, image.width), min(window.bottom * factor, image.height))
            )  # fmt: skip
            free = torch.zeros_like(latents)
            inner.of(free).copy_(autoencoder.statistics.std.reshape(-1, 1, 1))
            moved = _searched(
                codec, autoencoder, to_tensor(part), window.of(latents), window.of(free), weights, trade, steps, bar
            )
            window.of(latents).copy_(moved)
    return latents


def _searched(
    codec: LatentCodec,
    autoencoder: Autoencoder,
    picture: Tensor,
    latents: Tensor,
    free: Tensor,
    weights: dict[str, float],
    trade: float,
    steps: int,
    bar: tqdm,
) -> Tensor:
    """A window's latents (1, c, h, w) after the search for its picture (1, 3, H, W). free: a step's unit by place, 0: fixed."""
    height, width = picture.shape[2:]
    shift = torch.zeros_like(latents).requires_grad_()
    adam = torch.optim.Adam([shift], betas=(0.9, 0.95))
    for step in range(steps):
        adam.param_groups[0]["lr"] = STEP * (1 + math.cos(math.pi * step / steps)) / 2
        coded = codec.estimate(codec.pad(latents + free * shift))
        decoded = coded.latents[:, :, : latents.shape[2], : latents.shape[3]]
        with bfloat16(True, picture.device):
            shown = autoencoder.reconstruct(decoded)[:, :, :height, :width]
        loss = _distortion(shown, picture, weights) + (coded.y_bits + coded.z_bits) / (height * width * trade)
        (gradient,) = torch.autograd.grad(loss, shift)
        if gradient.isfinite().all():  # DISTS may have none where a picture is tiny or flat
            shift.grad = gradient
            adam.step()
        bar.update()
    return (latents + free * shift).detach()


def _distortion(shown: Tensor, picture: Tensor, weights: dict[str, float]) -> Tensor:
    """D of what is shown against a picture, (1, 3, H, W) in [0, 1]: the terms of ``training.losses``, of other parts for VGG."""
    total = weights["l1"] * F.l1_loss(shown, picture) + weights["mse"] * F.mse_loss(shown, picture)
    if weights["alex"]:
        seen = elsewhere(_extended(shown), _extended(picture))
        total = total + weights["alex"] * lpips_network("alex")(*seen).mean()
    if weights["vgg"] or weights["dists"]:
        top, left = (int(torch.randint(max(size - VGG_SIDE, 0) + 1, ())) for size in shown.shape[2:])
        parts = [_extended(x[:, :, top : top + VGG_SIDE, left : left + VGG_SIDE]) for x in (shown, picture)]
        a, b = (part.contiguous(memory_format=torch.channels_last) for part in parts)
        for name, network in (("vgg", lambda: lpips_network("vgg")), ("dists", dists_network)):
            if weights[name]:
                with bfloat16(True, shown.device):
                    total = total + weights[name] * network()(a, b).mean()
    return total


def _extended(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W), at least ``LEAST_SIDE`` a side, the border replicated."""
    missing = [max(LEAST_SIDE - size, 0) for size in pictures.shape[2:]]
    return F.pad(pictures, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else pictures


def loss_of(codec: LatentCodec) -> tuple[dict[str, float], float]:
    """The weights of D's terms and lambda, at the codec's rate, that its card says it was trained with; InputError where it saw
    no pictures."""
    training = codec.card.get("training", {})
    last = training.get("phases", [{}])[-1]
    weights = {name: float(last.get(name, 0.0)) for name in TERMS}
    if not any(weights.values()):
        raise InputError(
            f"{codec.name} was not trained on pictures, by whose loss a file is refined; choose live_plus or glc"
        )
    if codec.highest is None:
        return weights, float(training["trained_at"])
    low = min(int(codec.rate), codec.highest - 1)
    first, second = (math.log(training["lambdas"][each]) for each in (low, low + 1))
    return weights, math.exp(first + (codec.rate - low) * (second - first))


@contextmanager
def _noisy(codec: LatentCodec) -> Iterator[None]:
    """Within it the codec's entropy models take noise for rounding, as in training; nothing that codes looks at that."""
    models = [module for module in codec.modules() if isinstance(module, EntropyModel)]
    for model in models:
        model.train()
    try:
        yield
    finally:
        for model in models:
            model.eval()
