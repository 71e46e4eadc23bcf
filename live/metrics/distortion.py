"""PSNR and MS-SSIM (Wang et al. 2003) of pictures in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

MS_SSIM_SMALLEST = 161
"""Shortest side in px at which MS-SSIM is defined: an 11-px window after four halvings."""


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1], twice -> (B,) dB over all three channels, peak 1; infinite where identical.

    Average over pictures, never the error over the whole set.
    """
    error = (a.double() - b.double()).square().mean((1, 2, 3))
    return (-10 * torch.log10(error)).float()


def ms_ssim(a: Tensor, b: Tensor) -> Tensor | None:
    """(B, 3, H, W) in [0, 1], twice -> (B,) in [0, 1], 1 is identical; the standard five scales, mean over channels.

    None (not applicable) where a side is shorter than 161 px.
    """
    if min(a.shape[2:]) < MS_SSIM_SMALLEST:
        return None
    from pytorch_msssim import ms_ssim as library

    return library(a, b, data_range=1.0, size_average=False)
