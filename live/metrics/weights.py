"""Weights of the metrics' networks: fetched once, hash-checked, converted to safetensors in the cache, then offline.

``python -m live.metrics.weights [NAME ...]`` fetches those of alex, vgg, dists and inception, all by default.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..command import Parser, run
from ..errors import InputError
from ..files import make_folder, write_atomic
from ..registry import METRIC_WEIGHTS, cache_dir, fetch_member

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np.core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays in plain containers and nothing else; any other global is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _ALLOWED[module, name]


def metric_weights(name: str) -> dict[str, Tensor]:
    """The weights called ``alex``, ``vgg`` (convolutions, LPIPS heads), ``dists`` (alpha and beta) or ``inception``.

    ``convN.weight`` (O, I, k, k) and ``convN.bias`` (O,) in forward order; ``linN`` (1, C, 1, 1), LPIPS's linear heads.
    Inception's ``convN.weight`` is flat (O * I * k * k,), and each of its convolutions has a batch normalisation, of
    which ``convN.bias``, ``convN.mean`` and ``convN.var`` (O,) are the parameters.
    Fetches and converts them on first use; ModelError when that is impossible.
    """
    artefact = METRIC_WEIGHTS[name]
    path = cache_dir() / "metrics" / f"{name}-{artefact.sha256[:16]}.safetensors"
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError):  # never fetched, or damaged since
        pass
    tensors = _CONVERTERS[name](fetch_member(artefact))
    make_folder(path.parent)
    write_atomic(path, save(tensors))
    return tensors


def _from_flax(data: bytes) -> dict[str, Tensor]:
    tree = _ArrayUnpickler(io.BytesIO(data)).load()
    backbone = next(branch for key, branch in tree.items() if not key.startswith("NetLinLayer"))
    tensors: dict[str, Tensor] = {}
    for index in range(len(backbone)):
        layer = backbone[f"Conv_{index}"]
        tensors[f"conv{index}.weight"] = _hwio_to_oihw(layer["kernel"])
        tensors[f"conv{index}.bias"] = torch.from_numpy(np.array(layer["bias"]))
    for index in range(5):
        tensors[f"lin{index}"] = _hwio_to_oihw(tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"])
    return tensors


def _hwio_to_oihw(kernel: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.transpose(kernel, (3, 2, 0, 1))))


def _from_torch(data: bytes) -> dict[str, Tensor]:
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name: state[name].detach().contiguous() for name in ("alpha", "beta")}


def _from_torchscript(data: bytes) -> dict[str, Tensor]:
    """TorchScript is code, pickle and a zip of numbered raw float32 arrays: the arrays alone are read, nothing is run."""
    tensors: dict[str, Tensor] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [name for name in archive.namelist() if "/data/" in name]
        folder = members[0].rpartition("/")[0]
        for index in range(len(members)):
            layer, part = divmod(index, len(_NORMALISED))
            values = np.frombuffer(archive.read(f"{folder}/{index}"), "<f4")
            tensors[f"conv{layer}.{_NORMALISED[part]}"] = torch.from_numpy(values.copy())
    return tensors


_NORMALISED = ("weight", "bias", "mean", "var")
_CONVERTERS: dict[str, Callable[[bytes], dict[str, Tensor]]] = {
    "alex": _from_flax,
    "vgg": _from_flax,
    "dists": _from_torch,
    "inception": _from_torchscript,
}


def main(argv: list[str] | None = None) -> int:
    """Fetch what is missing; returns the exit code."""
    parser = Parser(prog="python -m live.metrics.weights", description="Fetch the metrics' weights.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(METRIC_WEIGHTS)}; default: all")
    names = parser.parse_args(argv).names or list(METRIC_WEIGHTS)
    if unknown := [name for name in names if name not in METRIC_WEIGHTS]:
        raise InputError(f"there are no weights {unknown[0]}; choose from {', '.join(METRIC_WEIGHTS)}")
    for name in names:
        metric_weights(name)
    print(f"{', '.join(names)}: ready in {cache_dir() / 'metrics'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
