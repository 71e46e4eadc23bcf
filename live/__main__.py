"""The ``live`` command: parse, call, print. Refusals are one line on stderr and exit code 2; torch loads only when needed."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import __version__, commands, folders
from .command import Parser, run
from .container import MAX_PIXELS
from .errors import InputError
from .video import commands as clips
from .video.container import MAX_FRAMES


def build_parser() -> argparse.ArgumentParser:
    """The command line, one subcommand a verb."""
    parser = Parser(prog="live", description="Pictures and diffusion latents as real, tiny files.")
    parser.add_argument("--version", action="version", version=f"live {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND", parser_class=Parser)

    compress = verbs.add_parser("compress", help="a picture, a folder of pictures, a clip or latents -> .live")
    compress.add_argument("input", type=path, help="picture, folder, clip, or latents (.safetensors)")
    _output(compress, "output file (a folder when the input is one); default: beside the input, suffix .live")
    dial = compress.add_mutually_exclusive_group()
    _codec_choice(compress, dial)
    dial.add_argument("--target-bpp", type=float, metavar="R", help="the highest quality of at most R bits a pixel")
    compress.add_argument(
        "--refine", type=int, default=0, metavar="N", help="N steps of a search for a better file, seconds each; try 20"
    )
    compress.add_argument("--alpha", metavar="COLOUR", help="flatten transparency over this colour (white, #rrggbb)")
    _limit(compress)
    _clip_choice(compress)
    compress.set_defaults(run=_compress)

    decompress = verbs.add_parser("decompress", help=".live -> picture (or clip, or latents, if it holds such)")
    decompress.add_argument("input", type=path, help=".live file, or a folder of such")
    _output(
        decompress,
        f"output picture ({', '.join(commands.OUTPUT_FORMATS)}); of a clip .mp4, .y4m or, for PNGs, a new folder; of a folder "
        "one for PNGs; default: beside the input, suffix .png or .mp4",
    )
    _decoder_choice(decompress)
    decompress.add_argument("--vae", metavar="NAME", help="the autoencoder, if it is not the codec's own")
    clip = decompress.add_argument_group("clips")
    clip.add_argument("--lossless", action="store_true", help="keep every bit of what is decoded in the mp4 or y4m")
    clip.add_argument("--salvage", action="store_true", help="of a damaged clip what can be decoded; exit code 1")
    _frames_limit(clip)
    decompress.set_defaults(run=_decompress)

    info = verbs.add_parser("info", help="what a .live file holds, without decoding it")
    info.add_argument("input", type=path)
    info.add_argument("--json", action="store_true", help="one JSON object")
    info.set_defaults(run=_info)

    models = verbs.add_parser("models", help="the codec checkpoints and autoencoders this release knows")
    models.add_argument("--json", action="store_true", help="one JSON object")
    models.set_defaults(run=commands.models)

    latents = verbs.add_parser("latents", help="latents <-> .live, without touching pixels")
    actions = latents.add_subparsers(dest="action", required=True, metavar="pack|unpack", parser_class=Parser)
    pack = actions.add_parser("pack", help="latents (.safetensors) -> .live")
    pack.add_argument(
        "input", type=path, help="safetensors holding (c, h, w) or (1, c, h, w), or (T, c, h, w), the frames of a clip"
    )
    pack.add_argument("--key", help="name of the tensor; needed when the file holds several")
    _output(pack, "output file; default: beside the input, suffix .live")
    _codec_choice(pack, pack.add_mutually_exclusive_group())
    _clip_choice(pack)
    pack.set_defaults(run=_pack)
    unpack = actions.add_parser("unpack", help=".live -> latents (.safetensors, tensor 'latents')")
    unpack.add_argument("input", type=path)
    _output(unpack, "output file; default: beside the input, suffix .safetensors")
    _decoder_choice(unpack)
    _frames_limit(unpack)
    unpack.set_defaults(run=_unpack)
    return parser


def _output(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-o", "--output", type=path, metavar="OUT", help=text)
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing output")


def _codec_choice(parser: argparse.ArgumentParser, dial: argparse._MutuallyExclusiveGroup) -> None:
    dial.add_argument(
        "-q",
        "--quality",
        type=number,
        metavar="N",
        help="quality, of glc fractions too (see live models); default: middle",
    )
    parser.add_argument(
        "--codec",
        metavar="NAME",
        help="live_plus (default), glc for the lowest rates, live_paper; of clips live_video (default), glc_video",
    )
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="a codec checkpoint of your own")
    parser.add_argument("--vae", metavar="NAME", help="autoencoder: name, folder or hub id; default: the codec's own")
    parser.add_argument("--verify", action="store_true", help="decode what was written before it counts as done")


def _clip_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fps",
        metavar="R",
        help="make a folder's pictures, or latents (default: 25), one clip, R (25, 30000/1001) a second",
    )
    parser.add_argument(
        "--intra-period",
        type=int,
        metavar="N",
        help="at least every N-th frame of a clip stands alone, where others are predicted; default: 96",
    )
    parser.add_argument(
        "--no-scene-cuts",
        action="store_true",
        help="of a clip, predict a frame also where an intra frame would take fewer bytes",
    )


def path(text: str) -> Path:
    """A name on the command line; an empty one would stand for the folder one is in."""
    if not text:
        raise InputError("a name of a file or folder is empty; is a variable not set?")
    return Path(text)


def number(text: str) -> float:
    """A quality on the command line, whose refusals call it by this function's name."""
    value = float(text)
    return int(value) if value.is_integer() else value


def positive(text: str) -> int:
    """A limit on the command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _decoder_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="the codec checkpoint, if it is not embedded")
    _limit(parser)


def _limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-pixels", type=positive, default=MAX_PIXELS, metavar="N", help="refuse larger pictures (%(default)s)"
    )


def _frames_limit(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--max-frames", type=positive, default=MAX_FRAMES, metavar="N", help="refuse longer clips (%(default)s)"
    )


def _compress(args: argparse.Namespace) -> int:
    if args.input.suffix == commands.LATENT_SUFFIX and not args.input.is_dir():
        commands.refuse_picture_options(args)
        args.key = None
        return _pack(args)
    if clips.is_source(args):
        return clips.compress(args)
    _refuse_clip_options(args)
    return folders.compress(args) if args.input.is_dir() else commands.compress(args)


def _pack(args: argparse.Namespace) -> int:
    if clips.holds_frames(args):
        return clips.pack_latents(args)
    _refuse_clip_options(args)
    return commands.pack_latents(args)


def _refuse_clip_options(args: argparse.Namespace) -> None:
    if args.intra_period is not None:
        raise InputError(f"{args.input} is no clip; --intra-period is for clips")
    if args.no_scene_cuts:
        raise InputError(f"{args.input} is no clip; --no-scene-cuts is for clips")


def _unpack(args: argparse.Namespace) -> int:
    return clips.unpack_latents(args) if clips.holds_clip(args.input) else commands.unpack_latents(args)


def _decompress(args: argparse.Namespace) -> int:
    if clips.holds_clip(args.input):
        return clips.decompress(args)
    if args.lossless or args.salvage:
        raise InputError(f"{args.input} holds no clip; --lossless and --salvage are for clips")
    return folders.decompress(args) if args.input.is_dir() else commands.decompress(args)


def _info(args: argparse.Namespace) -> int:
    return clips.info(args) if clips.holds_clip(args.input) else commands.info(args)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 (some files of a folder failed), 2 (refused) or 130 (interrupted)."""

    def call() -> int:
        arguments = build_parser().parse_args(argv)
        return arguments.run(arguments)

    return run(call)


if __name__ == "__main__":
    raise SystemExit(main())
