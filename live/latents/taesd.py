"""TAESD-family tiny autoencoders as published: ``NAME_encoder.pth`` and ``NAME_decoder.pth`` in one folder.

The files are state dicts of two plain sequences, and everything is read off their keys and shapes, never off a name:

- ``N.conv.0.weight``: layer N is a residual block; with ``N.pool.*`` it has FLUX.2's mid-block pool, with
  ``N.skip.weight`` a 1x1 skip between different widths
- ``N.weight``: layer N is a convolution. In the encoder it has stride 2 when it has no bias or is followed by a ReLU
- no key for N: a layer without weights. In the decoder: layer 0 is the clamp 3 tanh(z / 3), a layer before a
  convolution without bias is the x2 upsampling, any other a ReLU. In the encoder: a ReLU

Pictures are in [0, 1] on both sides and latents are already in the diffusion convention (scale 1, shift 0).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError, is_out_of_memory
from ..tiles import Network
from .base import Autoencoder, Statistics, identity_of
from .precision import GuardedNet, parse_dtype
from .statistics import find_statistics

State = dict[str, Tensor]
PROBE = 64
POOL_GROUPS = 4
"""GroupNorm groups of the mid-block pool: the one number that no shape tells."""
_BLOCK_KEY = re.compile(r"(conv\.[024]\.(weight|bias)|skip\.weight|pool\.(0\.weight|1\.(weight|bias)|3\.weight))")
_CONV_KEY = re.compile(r"weight|bias")


class TinyAutoencoderPth(Autoencoder):
    """Loads a TAESD-family pair (SD, SDXL, SD3, FLUX.1, FLUX.2, SANA). ``conventions``: range, scale, shift, clamp.

    folder: holds exactly one pair. dtype: "float32", "float16" or "bfloat16", float32 where that overflows.
    statistics: of the latents, measured by the caller (see ``find_statistics`` for what applies otherwise).
    A mid-block pool normalises over the whole picture, so a crop's latents differ slightly from the picture's there.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str | None = None,
        dtype: str | torch.dtype = "float32",
        statistics: Statistics | None = None,
    ):
        folder = Path(folder)
        paths = find_pair(folder)
        encoder, decoder = (_read_state(path) for path in paths)
        self.name = name or str(folder)
        encoder_net, decoder_net = build_encoder(encoder, paths[0]), build_decoder(decoder, paths[1])
        _, self.channels, side, _ = _probe(encoder_net, (1, 3, PROBE, PROBE), paths[0])
        self.factor = PROBE // side
        if _probe(decoder_net, (1, self.channels, side, side), paths[1]) != (1, 3, PROBE, PROBE):
            raise ModelError(f"the encoder and the decoder in {folder} do not belong together; fetch both files again")
        clamp = "3tanh" if isinstance(decoder_net[0], Clamp) else "none"
        self.conventions = {"input_range": "0..1", "scale": 1.0, "shift": 0.0, "clamp": clamp}
        tensors = {f"encoder.{key}": value for key, value in encoder.items()}
        tensors |= {f"decoder.{key}": value for key, value in decoder.items()}
        self.identity = identity_of(tensors, f"taesd-1: pictures [0,1], scale 1, shift 0, clamp {clamp}")
        self.statistics = find_statistics(self.identity, self.channels, statistics, folder)
        precision = parse_dtype(dtype)
        self.encoder = GuardedNet(encoder_net, precision, self.name)
        self.decoder = GuardedNet(decoder_net, precision, self.name)

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        return self.encoder.run(_apply, pictures)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder.run(_apply, latents).clamp_(0, 1)

    def reconstruct(self, latents: Tensor) -> Tensor:
        return self.decoder.full(latents).float()

    def to(self, device: torch.device) -> None:
        self.encoder.to(device)
        self.decoder.to(device)

    def networks(self) -> tuple[Network, Network]:
        return self.encoder.full, self.decoder.full


class Clamp(nn.Module):
    """3 tanh(z / 3): latents softly bounded to (-3, 3), the decoder's guard against diffusion outliers."""

    def forward(self, latents: Tensor) -> Tensor:
        return 3 * torch.tanh(latents / 3)


class Block(nn.Module):
    """(B, i, h, w) -> (B, o, h, w): ReLU(conv(x) + skip(x)) of x, or of x + pool(x) in FLUX.2's mid-blocks.

    Built from the shapes of its own keys in ``state``, those that begin with ``prefix``.
    """

    def __init__(self, state: State, prefix: str):
        super().__init__()
        first, second, third = (_conv(state, f"{prefix}.conv.{index}") for index in (0, 2, 4))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.skip = _conv(state, f"{prefix}.skip") if f"{prefix}.skip.weight" in state else nn.Identity()
        self.pool: nn.Module | None = None
        if f"{prefix}.pool.0.weight" in state:
            norm = nn.GroupNorm(POOL_GROUPS, len(state[f"{prefix}.pool.1.weight"]))
            widen, narrow = _conv(state, f"{prefix}.pool.0"), _conv(state, f"{prefix}.pool.3")
            self.pool = nn.Sequential(widen, norm, nn.ReLU(), narrow)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + self.skip(x))


def find_pair(folder: Path) -> tuple[Path, Path]:
    """The one ``*_encoder.pth`` of a folder and its ``*_decoder.pth``; ModelError unless it is the one pair there."""
    encoders = sorted(folder.glob("*_encoder.pth"))
    if len(encoders) != 1:
        found = "no *_encoder.pth" if not encoders else f"{len(encoders)} *_encoder.pth files"
        raise ModelError(f"{folder} holds {found}; give a folder with one encoder and its decoder")
    decoder = folder / encoders[0].name.replace("_encoder.pth", "_decoder.pth")
    if not decoder.is_file():
        raise ModelError(f"{encoders[0]} has no {decoder.name} beside it; fetch both files")
    return encoders[0], decoder


def build_encoder(state: State, where: Path) -> nn.Sequential:
    """The encoder that a state dict describes, with its weights; ModelError naming ``where`` if it describes none."""
    return _build(state, where, upsamples=False)


def build_decoder(state: State, where: Path) -> nn.Sequential:
    """The decoder that a state dict describes, with its weights; ModelError naming ``where`` if it describes none."""
    return _build(state, where, upsamples=True)


def _build(state: State, where: Path, upsamples: bool) -> nn.Sequential:
    kinds = _layer_kinds(state, where)
    layers: list[nn.Module] = []
    try:
        for index, kind in enumerate(kinds):
            if kind == "block":
                layers.append(Block(state, str(index)))
            elif kind == "conv":
                strided = f"{index}.bias" not in state or kinds[index + 1 : index + 2] == ["none"]
                layers.append(_conv(state, str(index), stride=2 if strided and not upsamples else 1))
            elif upsamples and index == 0:
                layers.append(Clamp())
            else:
                unbiased = kinds[index + 1] == "conv" and f"{index + 1}.bias" not in state
                layers.append(nn.Upsample(scale_factor=2.0) if upsamples and unbiased else nn.ReLU())
        net = nn.Sequential(*layers)
        net.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (RuntimeError, ValueError):
        raise ModelError(f"{where} does not hold a TAESD-family network; its tensors do not fit together") from None
    return net


def _layer_kinds(state: State, where: Path) -> list[str]:
    """What each layer is, by its keys alone: "block", "conv" or, for an index without keys, "none"."""
    kinds: dict[int, str] = {}
    for key in state:
        index, _, rest = key.partition(".")
        kind = "block" if _BLOCK_KEY.fullmatch(rest) else "conv" if _CONV_KEY.fullmatch(rest) else ""
        if not kind or not index.isdecimal() or int(index) > 999 or kinds.setdefault(int(index), kind) != kind:
            raise ModelError(
                f"{where} does not hold a TAESD-family network (unknown tensor {key}); choose another file"
            )
    for index, kind in kinds.items():
        needed = [f"conv.{i}.weight" for i in (0, 2, 4)] if kind == "block" else ["weight"]
        if kind == "block" and any(key.startswith(f"{index}.pool.") for key in state):
            needed += [f"pool.{i}.weight" for i in (0, 1, 3)]
        if any(f"{index}.{key}" not in state for key in needed):
            raise ModelError(f"{where} does not hold a TAESD-family network: its layer {index} is not whole")
    if not kinds or kinds[max(kinds)] != "conv":
        raise ModelError(f"{where} does not hold a TAESD-family network: it does not end in a convolution")
    return [kinds.get(index, "none") for index in range(max(kinds) + 1)]


def _conv(state: State, prefix: str, stride: int = 1) -> nn.Conv2d:
    outputs, inputs, size, _ = state[f"{prefix}.weight"].shape
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=f"{prefix}.bias" in state)


@torch.inference_mode()
def _probe(net: nn.Module, shape: tuple[int, ...], where: Path) -> tuple[int, ...]:
    """The shape that the network makes of zeros of ``shape``; ModelError when its layers do not fit it."""
    try:
        return tuple(net(torch.zeros(shape)).shape)
    except RuntimeError:
        raise ModelError(f"{where} does not fit pictures or latents of shape {shape}; fetch both files again") from None


def _read_state(path: Path) -> State:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything on damaged data
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{path} is not a readable file of tensors; fetch it again") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} is not a state dict; give the published *_encoder.pth and *_decoder.pth")
    return state


def _apply(net: nn.Module, values: Tensor) -> Tensor:
    return net(values)
