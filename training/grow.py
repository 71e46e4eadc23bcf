"""Start a larger autoencoder from a smaller one's weights: more latent channels, more blocks, the same function at first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from live.errors import ConfigError

_MEANS_AND_SCALES = ("hyper.head.", "hyper.context_head.2.")
"""Layers whose outputs are means, then scales, of all channels: each half grows by itself."""


def grow(small: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state ``initial`` of a network with the trained weights of a ``small`` one in their places.

    New outputs keep their initial weights; what they mean to the layers behind them starts at zero, except in the
    patch transforms, which stay a transform and its inverse. New channels are quantised as the last old one: at the
    initial gains they would cost far too much at coarse levels, and gains are slow to learn. Layers that the small one
    lacks stay as they are, and are zero-initialised residuals. ConfigError when the small network is not smaller in
    every size.
    """
    grown = dict(initial)
    for name, old in small.items():
        if name not in initial:
            continue
        parts = 2 if name.startswith(_MEANS_AND_SCALES) else 1
        try:
            pairs = zip(old.float().chunk(parts), initial[name].chunk(parts), strict=True)
            grown[name] = torch.cat([_laid_over(old, new) for old, new in pairs])
        except RuntimeError:
            raise ConfigError(
                f"the weights to start from are larger than the configuration: {name} is {tuple(old.shape)} "
                f"there and {tuple(initial[name].shape)} here"
            ) from None
    if (gain := grown.get("log_gain")) is not None and (old := small.get("log_gain")) is not None:
        gain[:, old.shape[1] :] = old[:, -1:]
    return grown


def _laid_over(old: Tensor, new: Tensor) -> Tensor:
    if old.dim() > 1 and old.shape[1] < new.shape[1]:
        new = new.clone()
        new[:, old.shape[1] :] = 0
    result = new.clone()
    result[tuple(slice(size) for size in old.shape)] = old
    return result
