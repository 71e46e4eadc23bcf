"""Integer tables of cumulative frequencies: built once at export, stored in the checkpoint, never rebuilt at load.

A row serves one distribution: symbols ``offset .. offset + size - 3`` have their own frequency, everything outside
shares the last one, the escape, after which the coder writes the value in plain bits. Rows sum to 2^16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..borrowed import EntropyBottleneck, pmf_to_quantized_cdf

PRECISION = 16
TAIL_MASS = 1e-5
"""Probability left to the escape: a narrow table decodes faster, and 2^-16 is the smallest frequency anyway."""
UNSEEN = 0.05
"""What is spread evenly over the symbols of a categorical distribution, beside their use, which sums to one."""
MAX_REACH = 1 << 10
MAX_OFFSET = 1 << 15
MAX_ESCAPE = 1 << 10
"""Largest frequency of an escape, 1/64: the range coder's guard against streams that end early counts on it."""
_FIELDS = ("cdfs", "sizes", "offsets")


@dataclass(frozen=True)
class Tables:
    """cdfs (n, width) int32, each row padded with zeros; sizes (n,) int32, entries used; offsets (n,) int32, first symbol."""

    cdfs: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """For the checkpoint, under ``prefix.cdfs``, ``prefix.sizes`` and ``prefix.offsets``."""
        return {f"{prefix}.{name}": torch.from_numpy(getattr(self, name)) for name in _FIELDS}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], prefix: str, rows: int) -> Tables:
        """The tables of a checkpoint, taken out of ``tensors``; ValueError unless they are ``rows`` distributions."""
        tables = cls(*(tensors.pop(f"{prefix}.{name}").numpy().astype(np.int32) for name in _FIELDS))
        tables.check()
        if len(tables.sizes) != rows:
            raise ValueError(f"{prefix} has {len(tables.sizes)} rows instead of {rows}")
        return tables

    def check(self) -> None:
        """ValueError unless every row rises strictly from 0 to 2^16 within its size, the last step, the escape, a small one:
        the range coder trusts them."""
        rows, width = self.cdfs.shape
        if (
            self.sizes.shape != (rows,)
            or self.offsets.shape != (rows,)
            or not ((self.sizes > 2) & (self.sizes <= width)).all()
            or not ((self.offsets >= -MAX_OFFSET) & (self.offsets <= MAX_OFFSET)).all()
        ):
            raise ValueError("table sizes do not fit")
        for row, size in zip(self.cdfs, self.sizes, strict=True):
            if row[0] or row[size - 1] != 1 << PRECISION or (np.diff(row[:size]) <= 0).any():
                raise ValueError("a table row is no distribution")
            if row[size - 1] - row[size - 2] > MAX_ESCAPE:
                raise ValueError("a table row leaves too much to the escape")

    @cached_property
    def lists(self) -> tuple[list[list[int]], list[int], list[int]]:
        """cdfs (each without its padding), sizes and offsets as plain lists, the form that the range coder takes."""
        rows = [row[:size].tolist() for row, size in zip(self.cdfs, self.sizes, strict=True)]
        return rows, self.sizes.tolist(), self.offsets.tolist()

    def draw(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Symbols (B, rows, H, W) float32 drawn from all rows' distributions, escapes left out; shape: (B, H, W)."""
        batch, *size = shape
        channels = []
        for row, used, offset in zip(self.cdfs, self.sizes, self.offsets, strict=True):
            edges = torch.from_numpy(row[: used - 1].copy())
            numbers = torch.randint(int(edges[-1]), (batch, *size), generator=generator, dtype=torch.int32)
            channels.append(torch.searchsorted(edges, numbers, right=True) - 1 + offset)
        return torch.stack(channels, 1).float()

    def bits(self, symbols: np.ndarray, indices: np.ndarray) -> float:
        """Exact cost of symbols (int32) under rows ``indices`` in bits, escape codes included."""
        cost = np.zeros(len(symbols))
        last = self.sizes[indices] - 2
        place = symbols - self.offsets[indices]
        escaped = (place < 0) | (place >= last)
        place = np.where(escaped, last, place)
        frequency = self.cdfs[indices, place + 1] - self.cdfs[indices, place]
        cost += PRECISION - np.log2(frequency)
        values = symbols[escaped].astype(np.int64) - self.offsets[indices[escaped]]
        tops = last[escaped].astype(np.int64)
        raw = np.where(values < 0, -2 * values - 1, 2 * (values - tops))
        digits = np.ceil(np.log2(raw + 1.0) / 4)
        return float(cost.sum() + (4 * digits + 4 * (digits // 15 + 1)).sum())


def gaussian_tables(scales: list[float]) -> Tables:
    """Zero-mean Gaussians integrated over unit intervals, one row a standard deviation."""
    reaches = [max(1, int(np.ceil(-_quantile(TAIL_MASS / 2) * scale))) for scale in scales]
    rows = []
    for scale, reach in zip(scales, reaches, strict=True):
        edges = (torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5) / scale
        rows.append((_normal_cdf(edges[1:]) - _normal_cdf(edges[:-1])).numpy())
    return _pack(rows, [-reach for reach in reaches])


def factorized_tables(bottleneck: EntropyBottleneck) -> Tables:
    """The learned density of every channel of z, sampled at median + integer, one row a channel."""
    with torch.no_grad():
        grid = torch.arange(-MAX_REACH, MAX_REACH + 1, dtype=torch.float32)
        medians = bottleneck.quantiles[:, :, 1:2]
        edges = torch.cat([grid - 0.5, grid[-1:] + 0.5])
        cumulative = bottleneck._logits_cumulative(medians + edges, stop_gradient=True).sigmoid()[:, 0].double().numpy()
    rows, offsets = [], []
    for row in cumulative:
        low = max(0, int(np.searchsorted(row, TAIL_MASS / 2)) - 1)
        high = min(len(grid), max(low + 1, int(np.searchsorted(row, 1 - TAIL_MASS / 2))))
        rows.append(np.diff(row[low : high + 1]))
        offsets.append(low - MAX_REACH)
    return _pack(rows, offsets)


def categorical_shares(usage: Tensor) -> Tensor:
    """Probabilities (K,) of K symbols from how often each was chosen, about summing to one; the never seen are possible."""
    shares = usage.double() + UNSEEN / len(usage)
    return shares / shares.sum()


def categorical_tables(usage: Tensor) -> Tables:
    """One row for the numbers 0 to K - 1, K up to 2^14, of ``categorical_shares``; the escape, never needed, is the rarest.

    Not by ``_pack``, whose rounding down leaves up to one part of each symbol to the escape: too much for a large codebook.
    """
    frequencies = _shared_out(categorical_shares(usage).numpy(), (1 << PRECISION) - 1)
    cdf = np.cumsum([0, *frequencies, 1]).astype(np.int32)
    return Tables(cdf[None], np.array([len(cdf)], np.int32), np.zeros(1, np.int32))


def _shared_out(shares: np.ndarray, total: int) -> np.ndarray:
    """Integers of at least 1 that sum to ``total``, in proportion to shares as far as that allows."""
    low, high = 0.0, float(total)
    for _ in range(64):  # bisection for the factor at which the shares, none below 1, sum to the total
        factor = (low + high) / 2
        low, high = (low, factor) if np.maximum(factor * shares, 1).sum() > total else (factor, high)
    exact = np.maximum(low * shares, 1)
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole


def _pack(rows: list[np.ndarray], offsets: list[int]) -> Tables:
    """Quantise probability rows to 16-bit frequencies (each at least 1), the missing mass becoming the escape."""
    sizes = np.array([len(row) + 2 for row in rows], np.int32)
    cdfs = np.zeros((len(rows), sizes.max()), np.int32)
    for index, row in enumerate(rows):
        escape = max(1.0 - float(row.sum()), 2.0**-PRECISION)
        cdfs[index, : sizes[index]] = pmf_to_quantized_cdf([*np.maximum(row, 1e-12).tolist(), escape], PRECISION)
    return Tables(cdfs, sizes, np.array(offsets, np.int32))


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-x / 2**0.5)


def _quantile(probability: float) -> float:
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))
