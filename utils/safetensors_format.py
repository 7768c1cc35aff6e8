"""Tensors as the bytes of a safetensors file (https://github.com/huggingface/safetensors).

Bytes and not paths, because safetensors itself opens no path that is not UTF-8. A file is the length of its header in 8
bytes, the header as JSON, padded with spaces to a multiple of 8 bytes, and the tensors.
"""

import json
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor


def to_bytes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The content of a file; equal tensors and metadata give equal bytes.

    Args:
        tensors: contiguous, on the CPU, by name.
        metadata: texts by name.
    """
    header, data = _split(safetensors.torch.save(tensors, metadata))
    # safetensors writes the metadata in random order.
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + data


def from_bytes(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata by name.

    Raises:
        ValueError: If it is not the whole content of such a file.
    """
    try:
        return safetensors.torch.load(content), _split(content)[0].get("__metadata__") or {}
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]
