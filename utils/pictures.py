"""Pictures given as a path, a PIL image or an array."""

import os
from typing import get_args

import numpy as np
from PIL import Image, ImageOps

from utils.errors import InputError
from utils.images import ColourOrder, check_picture, to_rgb
from utils.sources import read_picture
from utils.values import check_choice, to_path

Picture = str | os.PathLike[str] | Image.Image | np.ndarray


def to_bgr(picture: Picture, colour: ColourOrder = "bgr") -> np.ndarray:
    """A picture as an array for the detector and the network.

    Args:
        picture: a path; a PIL image of any mode but I and F, whose range is unknown (rotated according to its metadata,
            transparent parts made white); or an array (H, W, 3) uint8.
        colour: order of the channels of an array.

    Returns:
        (H, W, 3) uint8 BGR; an array in this order is returned as it is.

    Raises:
        InputError: If it is none of these, or the file cannot be read or decoded.
        OptionError: If the order is unknown.
    """
    check_choice("colour", colour, get_args(ColourOrder))
    if isinstance(picture, str | os.PathLike):
        return read_picture(to_path("picture", picture))
    if isinstance(picture, Image.Image):
        picture, colour = _rgb_of(picture), "rgb"
    try:
        check_picture(picture)
    except ValueError as error:
        raise InputError(f"not a path, a PIL image or an array that is a picture: {error}") from error
    return to_rgb(picture, "bgr") if colour == "rgb" else picture


def _rgb_of(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a PIL image."""
    try:
        upright = ImageOps.exif_transpose(picture)
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
        elif upright.mode.startswith("I;16"):
            # PIL would clip all values above 255.
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        elif upright.mode in ("I", "F"):
            raise InputError(f"{picture}: the range of its numbers is unknown; convert it to the mode L or RGB")
        return np.asarray(upright.convert("RGB"))
    except InputError:
        raise
    except (OSError, ValueError, ZeroDivisionError) as error:  # also of a closed picture, and of one without a pixel
        raise InputError(f"{picture}: cannot be decoded ({error}); the file is damaged, closed or empty") from error
