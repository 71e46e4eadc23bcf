"""A folder of pictures as latents, encoded once: sharded safetensors and an index that knows what they were made from.

    python -m training.latent_cache --data DIR --vae NAME --out CACHE [--crop PX] [--dtype float16]

The index holds the autoencoder's identity and the SHA-256 of every picture and shard. A cache of other pictures, or of
another autoencoder, is refused in words instead of training a wrong model in silence.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError, ModelError, OutputError
from live.files import make_folder, picture_files, read_bytes, write_atomic
from live.latents import load_autoencoder
from live.latents.base import Autoencoder
from live.media import to_tensor
from live.registry import sha256

from .data import Examples, is_validation, read_photo

INDEX, VERSION = "index.json", 1
SHARD_BYTES = 64 << 20
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def build(data: Path, autoencoder: Autoencoder, out: Path, crop: int | None = None, dtype: str = "float16") -> None:
    """Encode the pictures below ``data`` into ``out``; the index is written last, so a broken build is no cache. Pictures that
    cannot be read are left out and named.

    crop: encode only the middle, at most that many px a side. OutputError when ``out`` holds a cache already.
    """
    if (out / INDEX).exists():
        raise OutputError(f"{out} holds a latent cache already; remove it or choose another folder")
    files = picture_files(data)
    if crop is not None and crop < autoencoder.factor:
        raise InputError(f"--crop must be at least {autoencoder.factor}, the pixels of a latent of {autoencoder.name}")
    make_folder(out)
    shards: list[dict[str, Any]] = []
    sources: dict[str, str] = {}
    pending: dict[str, Tensor] = {}
    for path in tqdm(files, desc="latents", unit="picture"):
        name = path.relative_to(data).as_posix()
        sources[name] = sha256(path)
        photo = read_photo(path)
        picture = None if photo is None else _middle(to_tensor(photo), autoencoder.factor, crop)
        if picture is not None:
            pending[name] = autoencoder.encode(picture)[0].to(DTYPES[dtype])
        if sum(t.numel() * t.element_size() for t in pending.values()) > SHARD_BYTES or path == files[-1]:
            payload = save(pending)
            shards.append({"file": f"latents-{len(shards):05d}.safetensors", "sha256": sha256(payload)})
            write_atomic(out / shards[-1]["file"], payload)
            pending = {}
    index = {"version": VERSION, "autoencoder": autoencoder.identity, "autoencoder_name": autoencoder.name}
    index |= {"factor": autoencoder.factor, "crop": crop, "dtype": dtype, "shards": shards, "sources": sources}
    write_atomic(out / INDEX, json.dumps(index, indent=1).encode())


def _middle(picture: Tensor, factor: int, crop: int | None) -> Tensor | None:
    """The middle of (1, 3, H, W), each side a multiple of the factor and at most ``crop``; None if nothing is left."""
    sides = [min(size, crop or size) // factor * factor for size in picture.shape[2:]]
    if not all(sides):
        return None
    (height, width), (top, left) = sides, [(s - k) // 2 for s, k in zip(picture.shape[2:], sides, strict=True)]
    return picture[:, :, top : top + height, left : left + width]


def read(cache: Path, data: Path, autoencoder: Autoencoder, smallest: int) -> tuple[Examples, Examples]:
    """The training and the validation latents of a cache, each at least ``smallest`` positions a side.

    ModelError when there is no cache, its shards are damaged, or it was made from other pictures or another autoencoder.
    """
    hint = f"{cache} is not a latent cache; make one with: python -m training.latent_cache"
    if not (cache / INDEX).is_file():
        raise ModelError(hint)
    try:
        index = json.loads(read_bytes(cache / INDEX))
        if index["version"] != VERSION or index["autoencoder"] != autoencoder.identity:
            raise ModelError(
                f"the cache {cache} is of {index['autoencoder_name']}, not of this {autoencoder.name}: rebuild it"
            )
        now = {path.relative_to(data).as_posix(): sha256(path) for path in picture_files(data)}
        changed = sorted(name for name in now.keys() | index["sources"] if now.get(name) != index["sources"].get(name))
        if changed:
            raise ModelError(f"the cache {cache} is stale: {len(changed)} pictures differ ({changed[0]}); rebuild it")
        tensors: dict[str, Tensor] = {}
        for shard in index["shards"]:
            payload = read_bytes(cache / shard["file"])
            if sha256(payload) != shard["sha256"]:
                raise ModelError(f"the cache {cache} is damaged: {shard['file']} has another hash; rebuild it")
            tensors |= load(payload)
    except (ValueError, KeyError, TypeError, SafetensorError):
        raise ModelError(hint) from None
    # Sorted, since safetensors gives them in any order, and a resumed run must see the same batches.
    kept = {data / name: tensors[name] for name in sorted(tensors) if min(tensors[name].shape[1:]) >= smallest}
    parts = [[path for path in kept if is_validation(path) == held_out] for held_out in (False, True)]
    if not all(parts):
        raise ModelError(f"the cache {cache} leaves nothing to train or validate on at {smallest} positions a side")
    train, held_out = (Examples(part, [kept[path] for path in part], flip=False) for part in parts)
    return train, held_out


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        prog="python -m training.latent_cache", description="Encode a folder of pictures into a latent cache."
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("LIVE_TRAIN"), help="photos (default: LIVE_TRAIN)")
    parser.add_argument("--vae", default="compact", help="autoencoder: name, folder or hub id (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="CACHE")
    parser.add_argument("--crop", type=int, metavar="PX", help="only the middle, at most this many px a side")
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    args = parser.parse_args(argv)
    if not args.data:
        raise InputError("give a folder of photos with --data or LIVE_TRAIN")
    build(Path(args.data), load_autoencoder(args.vae), args.out, args.crop, args.dtype)
    print(f"{args.out}: the latents of {args.data}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
