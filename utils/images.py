"""From a picture to the tensor that the network takes: crop, size, channels."""

import io
import re
import warnings
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from PIL import Image

from utils.errors import InputError
from utils.reading import read_bytes
from utils.values import check_choice

ColourOrder = Literal["bgr", "rgb"]

MAX_PIXELS = 150_000_000
"""Most pixels of a picture; more would take gigabytes of memory."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)


def read_bgr(path: Path) -> tuple[np.ndarray, bytes]:
    """Read a picture of any bit depth, grey or in colour, rotated according to its metadata.

    Args:
        path: Any format that OpenCV decodes.

    Returns:
        (H, W, 3) uint8 BGR, and the content of the file.

    Raises:
        InputError: If the file cannot be read, is too large, or cannot be decoded, for example because it is truncated.
    """
    content = read_bytes(path)
    size = _declared_size(content)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"{path}: a picture of {size[0] * size[1]:,} pixels is more than {MAX_PIXELS:,}; make it smaller"
        )
    try:
        # Unlike imread, imdecode refuses a truncated file instead of filling the rest with grey.
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error:
        # On some damaged files OpenCV raises instead.
        picture = None
    if picture is None or picture.size == 0 or _is_broken_tiff(content):
        raise InputError(f"{path}: cannot be decoded as a picture; it is damaged or has another format")
    return picture, content


def _is_broken_tiff(content: bytes) -> bool:
    """Whether it is a TIFF file in which Pillow finds damage: OpenCV overlooks it."""
    if not content.startswith((b"II", b"MM")):
        return False
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as picture:
            warnings.simplefilter("ignore")
            picture.load()
    except OSError as error:
        # Other reasons are variants that only OpenCV knows.
        return re.search("decoder error|broken data stream|truncated", str(error)) is not None
    except Exception:  # Pillow raises many kinds of error on what it does not know
        return False
    return False


def _declared_size(content: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a picture, before it is decoded; None if Pillow cannot tell."""
    try:
        # Pillow warns about large pictures and refuses very large ones; the limit here is our own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as picture:
                return picture.size
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        return (int(found[1]), 1) if found else (MAX_PIXELS + 1, 1)
    except Exception:  # Pillow raises many kinds of error on a damaged header
        return None


def check_picture(picture: np.ndarray) -> None:
    """Check that a picture is an array (H, W, 3) uint8 of one to `MAX_PIXELS` pixels.

    Raises:
        ValueError: If it is anything else.
    """
    wanted = f"a picture must be an array (H, W, 3) uint8 of 1 to {MAX_PIXELS:,} pixels"
    if not isinstance(picture, np.ndarray):
        raise ValueError(f"{wanted}, not {type(picture).__name__}")
    is_picture = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    if not is_picture or not 0 < picture.shape[0] * picture.shape[1] <= MAX_PIXELS:
        raise ValueError(f"{wanted}, not {picture.shape} {picture.dtype}")


def to_rgb(image: np.ndarray, colour: ColourOrder) -> np.ndarray:
    """Put the channels of a picture into the order red, green, blue.

    Args:
        image: (..., 3) uint8.
        colour: The order of its channels.

    Returns:
        (..., 3) contiguous uint8.

    Raises:
        OptionError: If the order is unknown.
    """
    check_choice("colour", colour, get_args(ColourOrder))
    return np.ascontiguousarray(image[..., ::-1]) if colour == "bgr" else image


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image to a square; it is smoothed first if it shrinks.

    Pixel (u, v) moves to (u * size / W, v * size / H), the same map as for scaled landmarks. `cv2.resize` aligns the
    borders of the image instead of its first pixel, and would shift the picture against the landmarks.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) uint8; the image itself if it already has that size.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    zoom = size / np.array([width, height])
    if (zoom < 1).any():
        # For a factor of two this is the standard deviation of the binomial filter 1 2 1.
        sigma = 0.71 * np.sqrt(np.maximum(1 / zoom**2 - 1, 1e-3) / 3)
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1], borderType=cv2.BORDER_REPLICATE)
    return cv2.warpAffine(
        image, np.column_stack([np.diag(zoom), [0, 0]]), (size, size), borderMode=cv2.BORDER_REPLICATE
    )


def to_network_input(rgb: np.ndarray) -> torch.Tensor:
    """Normalise RGB images with the ImageNet mean and standard deviation.

    Args:
        rgb: (..., H, W, 3) uint8 RGB.

    Returns:
        (..., 3, H, W) contiguous float32.

    Raises:
        ValueError: On another dtype or number of channels.
    """
    if rgb.dtype != np.uint8 or rgb.ndim < 3 or rgb.shape[-1] != 3:
        raise ValueError(f"expected uint8 RGB of shape (..., H, W, 3), got {rgb.dtype} {rgb.shape}")
    image = torch.from_numpy(np.ascontiguousarray(rgb)).movedim(-1, -3)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return ((image.float() / 255 - mean) / std).contiguous()
