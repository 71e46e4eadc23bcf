"""Latents as a caller gives them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError


def as_latents(latents: Any, channels: int) -> Tensor:
    """One picture's latents, (1, c, h, w) or (c, h, w) of any float type, as (1, c, h, w) float32 on the CPU; InputError for
    what is none, of another number of channels, or not finite."""
    if not isinstance(latents, Tensor) or not latents.is_floating_point():
        raise InputError(f"latents must be a floating-point torch tensor, not {kind_of(latents)}")
    tensor = latents.detach().cpu().float()
    if tensor.dim() == 3:
        tensor = tensor[None]
    if tensor.dim() != 4 or tensor.shape[0] != 1 or tensor.shape[1] != channels or not tensor.numel():
        raise InputError(
            f"latents have shape {tuple(latents.shape)}; expected ({channels}, h, w) or (1, {channels}, h, w)"
            ", one picture at a time"
        )
    if not torch.stack(tensor.aminmax()).isfinite().all():
        raise InputError("the latents hold NaN or infinite values; check the pipeline that made them")
    return tensor


def kind_of(value: Any) -> str:
    """What something is, in words, for the refusal of it."""
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
