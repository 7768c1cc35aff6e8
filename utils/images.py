"""From a picture to the tensor that the network takes: crop, size, channels."""

from typing import Literal, get_args

import cv2
import numpy as np
import torch

ColourOrder = Literal["bgr", "rgb"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)


def decode_image(content: bytes) -> np.ndarray | None:
    """Decode the content of an image file.

    Args:
        content: Any format that OpenCV decodes.

    Returns:
        (H, W, 3) uint8 BGR; None if it does not decode, for example because it is cut short.
    """
    # Unlike imread, imdecode refuses a file that is cut short instead of filling up with grey.
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None


def to_rgb(image: np.ndarray, colour: ColourOrder) -> np.ndarray:
    """Bring the channels of a picture into the order red, green, blue.

    Args:
        image: (..., 3) uint8.
        colour: The order that it has.

    Returns:
        (..., 3) contiguous uint8.

    Raises:
        ValueError: An unknown order.
    """
    if colour not in get_args(ColourOrder):
        raise ValueError(f"colour must be one of {', '.join(get_args(ColourOrder))}, not {colour!r}")
    return np.ascontiguousarray(image[..., ::-1]) if colour == "bgr" else image


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image to a square, smoothing it first where it shrinks.

    Pixel (u, v) goes to (u * size / W, v * size / H), as landmarks do that are scaled; `cv2.resize`, which aligns the
    borders of the image instead of its first pixel, would shift the picture against them.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) uint8; the image itself if it has that size.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    zoom = size / np.array([width, height])
    if (zoom < 1).any():
        # The standard deviation at which halving an image is the binomial filter 1 2 1, for any factor.
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
