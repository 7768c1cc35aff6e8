"""The paths of a checkpoint's ONNX export, and the key that tells which weights it was made from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

DIGEST_KEY = "ldeq_weights_sha256"
"""In the metadata of both files: `models.checkpoints.weights_digest` of the network."""

CHECKSUM_KEY = "ldeq_file_sha256"
"""In the metadata of both files: `file_checksum`."""

CHECKPOINT_SUFFIXES = (".safetensors", ".pth.tar")


@dataclass(frozen=True)
class Export:
    """The two files of an export.

    Attributes:
        backbone: images (B, 3, S, S) -> embedded (B, C, S/4, S/4), once a frame.
        cell: z (B, Z, S/4, S/4), embedded -> f_z, and keypoints (B, K, 2) and uncertainty (B, K) of f_z.
    """

    backbone: Path
    cell: Path


def file_checksum(content: bytes, stored: str) -> str:
    """SHA-256 in hexadecimal of a file that holds its own checksum, taken with zeros in place of the checksum.

    Args:
        content: the file.
        stored: the checksum in the file.
    """
    return hashlib.sha256(content.replace(stored.encode(), b"0" * len(stored))).hexdigest()


def export_paths(checkpoint: Path, folder: Path | None = None) -> Export:
    """The paths of a checkpoint's export: next to it, or in another folder."""
    name = checkpoint.name
    for suffix in CHECKPOINT_SUFFIXES:
        name = name.removesuffix(suffix)
    folder = checkpoint.parent if folder is None else folder
    return Export(folder / f"{name}.backbone.onnx", folder / f"{name}.cell.onnx")


def export_of(checkpoint: Path) -> Export | None:
    """The export next to a checkpoint, from whatever weights; None if there is none."""
    export = export_paths(checkpoint)
    return export if export.backbone.is_file() and export.cell.is_file() else None
