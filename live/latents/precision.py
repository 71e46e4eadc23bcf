"""Running a network in a reduced precision, with float32 as the way back: some autoencoders overflow in half."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import InputError, ModelError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype called "float32", "float16" or "bfloat16" (or given as such); InputError for any other."""
    if dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]
    if dtype not in DTYPES:
        raise InputError(f"unknown precision {dtype}; choose from {', '.join(DTYPES)}")
    return DTYPES[dtype]  # type: ignore[index]


class GuardedNet:
    """A frozen float32 network and, for a reduced ``dtype``, its copy. name: the autoencoder's, for messages.

    channels_last inside: a fifth faster for these convolutions on a CPU.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype, name: str):
        self.full = net.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.reduced = None if dtype == torch.float32 else copy.deepcopy(self.full).to(dtype)
        self.dtype, self.name = dtype, name

    def to(self, device: torch.device) -> None:
        """Move both."""
        for net in (self.full, self.reduced):
            if net is not None:
                net.to(device)

    def run(self, step: Callable[[nn.Module, Tensor], Tensor], values: Tensor) -> Tensor:
        """``step(net, values)`` as float32, in the reduced precision if its result is finite, else in float32.

        Raises InputError when the values themselves are not finite, ModelError when float32 does not help.
        """
        inputs = values.float().contiguous(memory_format=torch.channels_last)
        if self.reduced is not None:
            result = step(self.reduced, inputs.to(self.dtype)).float()
            if torch.isfinite(result).all():
                return result.contiguous()
        result = step(self.full, inputs)
        if torch.isfinite(result).all():
            return result.contiguous()
        if not torch.isfinite(values).all():
            raise InputError("the pictures or latents hold NaN or infinite values; check what made them")
        raise ModelError(
            f"the autoencoder {self.name} gives NaN or infinite values in float32; its weights are unusable"
        )
