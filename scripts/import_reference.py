"""Turn a checkpoint of the public LIVE reference into one of ours.

    python -m scripts.import_reference CHECKPOINT.pth.tar [-o OUT.safetensors] [--vae NAME]

The archive is read with ``weights_only=True``: it can hold tensors and plain containers, and nothing that runs.
"""

from __future__ import annotations

from pathlib import Path

import torch

from live.checkpoints import export_codec
from live.codecs.base import LatentCodec
from live.codecs.paper import LivePaper, PaperConfig, reference_state
from live.command import Parser, run
from live.errors import ModelError
from live.files import check_output

SCALING_FACTOR = 0.18215
"""Of Stable Diffusion's autoencoder, which the reference was trained on."""


def import_reference(source: Path, output: Path, vae: str) -> LatentCodec:
    """Read a reference checkpoint (a torch archive with ``state_dict``), export it in float32; ModelError in words."""
    if not source.is_file():
        raise ModelError(f"no checkpoint at {source}")
    try:
        archive = torch.load(source, map_location="cpu", weights_only=True)
    except Exception:  # torch raises a dozen kinds; each means that this is not a plain archive of tensors
        raise ModelError(f"{source} is not a torch archive of plain tensors; nothing else is read") from None
    try:
        state = reference_state(archive.get("state_dict", archive))
        m, channels = state["g_a.0.weight"].shape[:2]
        codec = LivePaper(PaperConfig(channels=channels, n=state["h_a.0.weight"].shape[0], m=m))
        missing, unexpected = codec.load_state_dict(state, strict=False)
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise ValueError("its weights are not finite")
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{source} is not a checkpoint of the LIVE reference: {str(error).splitlines()[-1].strip()}"
        ) from None
    if missing or unexpected:
        raise ModelError(
            f"{source} is not a checkpoint of the LIVE reference: {(missing or unexpected)[0]} does not fit"
        )
    # The reference codes the posterior as it is; ours and diffusion pipelines hold it times the scaling factor.
    card = {"quality": 0, "autoencoder": None, "autoencoder_name": vae, "factor": 8, "source": source.name}
    card["latent_scale"] = 1 / SCALING_FACTOR
    return export_codec(codec, output, card, half=False)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m scripts.import_reference", description="Import a checkpoint of the public LIVE reference."
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="default: beside the input, suffix .safetensors")
    parser.add_argument(
        "--vae", default="sd-vae-ft-mse-01", help="the autoencoder it was trained on (%(default)s: fed [0, 1])"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing output")
    args = parser.parse_args(argv)
    name = args.checkpoint.name.removesuffix(".tar").removesuffix(".pth")
    output = args.output or args.checkpoint.with_name(name + ".safetensors")
    check_output(output, args.force)
    import_reference(args.checkpoint, output, args.vae)
    print(f"{output}: {output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
