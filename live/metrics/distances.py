"""FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) of two sets of pictures, over patches.

Both compare distributions of Inception features, not pictures, and need thousands of samples. Codecs are tested on few
pictures, so that each gives many: its patches, as in HiFiC (Mentzer et al. 2020) and GLC.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from .inception import FEATURES

LEAST = FEATURES + 1
"""Fewest patches of a set: n of them span n - 1 dimensions, so that with fewer the features' covariance is singular and
FID measures their number. It falls with their number still above: compare only sets of one size."""
SUBSET, SUBSETS = 1000, 100


def patches(picture: Tensor, side: int) -> Tensor:
    """(1, C, H, W) -> (n, C, side, side): a grid without overlap from the top left corner, and one half a patch further.

    What does not fill a patch at the right and at the bottom is left out; n may be 0.
    """
    return torch.cat([_grid(picture, side), _grid(picture[:, :, side // 2 :, side // 2 :], side)])


def _grid(picture: Tensor, side: int) -> Tensor:
    rows, columns = (length // side for length in picture.shape[2:])
    whole = picture[0, :, : rows * side, : columns * side].unflatten(2, (columns, side)).unflatten(1, (rows, side))
    return whole.permute(1, 3, 0, 2, 4).flatten(0, 1)


def check_enough(count: int, side: int) -> None:
    """InputError where a set of ``count`` patches of ``side`` px is too small for FID."""
    if count < LEAST:
        raise InputError(
            f"{count} patches of {side} px are too few: below {LEAST} the covariance of the {FEATURES} features that FID "
            f"compares is singular; take more pictures{' or smaller patches' if side > 64 else ''}"
        )


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """FID of features (n, d) and (m, d), in float64: the Frechet distance of the two Gaussians of their moments.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) for covariances A and B; 0 for equal sets.
    """
    means = [features.double().mean(0) for features in (a, b)]
    # A = R.T R for the triangular factor R of centred features, so that (A B)^(1/2) has the singular values of R_a R_b.T as
    # its eigenvalues: nothing is squared and rooted again, and singular covariances do no harm, as they do where the matrix
    # square root of A B is taken.
    factors = [_factor(features, mean) for features, mean in zip((a, b), means, strict=True)]
    common = torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    spread = sum(factor.square().sum() for factor in factors)
    return max(float((means[0] - means[1]).square().sum() + spread - 2 * common), 0.0)


def _factor(features: Tensor, mean: Tensor) -> Tensor:
    """R (min(n, d), d) with R.T R the covariance of features (n, d)."""
    return torch.linalg.qr((features - mean) / (len(features) - 1) ** 0.5, mode="r").R


def kernel_distance(a: Tensor, b: Tensor) -> tuple[float, float]:
    """KID of features (n, d) and (m, d), n and m at least ``SUBSET``: mean and standard deviation over random subsets.

    The squared maximum mean discrepancy under the kernel (x.y / d + 1)^3 without bias, so around 0, and below too, for
    sets from one distribution. ``SUBSETS`` subsets of each set, drawn without replacement, the same at every call.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = a.double(), b.double()
    found = []
    for _ in tqdm(range(SUBSETS), desc="KID", unit="subset", leave=False):
        x, y = (features[torch.randperm(len(features), generator=generator)[:SUBSET]] for features in (a, b))
        found.append(_discrepancy(x, y))
    values = torch.stack(found)
    return float(values.mean()), float(values.std(correction=0))


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased squared discrepancy of two sets of one size: pairs of a sample with itself are left out."""
    count = len(x)
    among = sum(kernel.sum() - kernel.trace() for kernel in (_kernel(x, x), _kernel(y, y))) / (count * (count - 1))
    return among - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
