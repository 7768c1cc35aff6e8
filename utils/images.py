"""From a picture to the tensor that the network takes: crop, size, channels."""

import functools
import io
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from utils.errors import InputError
from utils.progress import print_warning
from utils.reading import read_bytes
from utils.values import check_choice, check_instance

ColourOrder = Literal["bgr", "rgb"]

MAX_PIXELS = 150_000_000
"""Most pixels of a picture; more would take gigabytes of memory."""

JPEG_START = b"\xff\xd8\xff"

PNG_START = b"\x89PNG\r\n\x1a\n"

COMPRESSION, DEFLATE = 259, (8, 32946)
"""The TIFF tag of the compression, and its values for Deflate."""

TIFF_COMPRESSIONS = (None, 1, 2, 3, 4, 5, 7, 32771, 32773, *DEFLATE, 34676, 34677)
"""Values of that tag that OpenCV decodes; of other values it makes a picture of what is in memory. None: unknown."""

INFLATED_AT_ONCE = 1_000_000
"""Bytes."""

STRIPS_OR_TILES = ((273, 279), (324, 325))
"""The TIFF tags of the places and lengths of the strips, and of the tiles."""

MISSING_DATA = "[Pp]remature end|bad (Huffman|arithmetic) code|instead of RST|Inconsistent progression"
"""The reports of libjpeg on data that are missing or meaningless."""

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
    header = _read_header(content)
    if header is not None and header.pixels > MAX_PIXELS:
        raise InputError(f"{path}: a picture of {header.pixels:,} pixels is more than {MAX_PIXELS:,}; make it smaller")
    # Without a size from the header, libjpeg could be made to allocate gigabytes.
    is_jpeg = header is not None and content.startswith(JPEG_START)
    jpeg, report = _decode_jpeg(content) if is_jpeg else (None, "")
    # Data that are missing are made up by libjpeg. Bytes that it skips may be damage, or padding as some cameras write
    # it, and odd headers are common: those pictures stay usable.
    if re.search(MISSING_DATA, report):
        raise InputError(f"{path}: is damaged ({report}); get it again")
    upright = jpeg if header is not None and header.is_upright else None
    picture = upright if upright is not None else _decode(content)
    if picture is None or _is_broken_tiff(content):
        raise InputError(f"{path}: cannot be decoded as a picture; it is damaged or has another format")
    if report:
        _warn_once(f"{path}: may be damaged ({report}); look at it, or get it again")
    return picture, content


def _decode(content: bytes) -> np.ndarray | None:
    """The picture as OpenCV decodes it, rotated according to its metadata; None if it refuses."""
    if not content or _is_broken_png(content):
        return None
    try:
        # Unlike imread, imdecode refuses a truncated file instead of filling the rest with grey.
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        # On some damaged files OpenCV raises instead.
        return None
    return None if picture is None or picture.size == 0 else picture


def _decode_jpeg(content: bytes) -> tuple[np.ndarray | None, str]:
    """The pixels of a JPEG, which are those of OpenCV but not rotated, or None and what libjpeg reports.

    OpenCV would print the report to stderr, without the file, and make it a picture.
    """
    try:
        return simplejpeg.decode_jpeg(content, "BGR"), ""
    except ValueError as error:
        return None, str(error)


@functools.cache
def _warn_once(text: str) -> None:
    """Print a warning, in a process once: training reads a picture many times."""
    print_warning(text)


def _is_broken_tiff(content: bytes) -> bool:
    """Whether it is a TIFF in which Pillow finds damage, or of an unknown compression: OpenCV overlooks both."""
    if not content.startswith((b"II", b"MM")):
        return False
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as picture:
            warnings.simplefilter("ignore")
            # To OpenCV its numbers are red, green and blue.
            if picture.mode == "LAB":
                return True
            picture.load()
            _check_strips(picture, content)
    except zlib.error:
        return True
    except OSError as error:
        if re.search("decoder error|broken data stream|truncated", str(error)):
            return True
    except Exception:  # Pillow raises many kinds of error on variants that only OpenCV knows
        pass
    return _tiff_compression(content) not in TIFF_COMPRESSIONS


def _tiff_compression(content: bytes) -> int | None:
    """The compression of the first picture of a TIFF file; None if it cannot be read."""
    try:
        directory = ImageFileDirectory_v2(content[:8])
        file = io.BytesIO(content)
        file.seek(directory.next)
        directory.load(file)
        return directory.get(COMPRESSION, 1)
    except Exception:  # Pillow raises many kinds of error on damaged metadata
        return None


def _check_strips(picture: Image.Image, content: bytes) -> None:
    """Check the Adler-32 checksums of a TIFF file whose strips or tiles are Deflate: no library does.

    Raises:
        zlib.error: If one does not match, or the data are no Deflate stream.
    """
    tags = picture.tag_v2 if isinstance(picture, TiffImageFile) else {}
    if tags.get(COMPRESSION) in DEFLATE:
        for starts, lengths in STRIPS_OR_TILES:
            for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=True):
                inflater, rest = zlib.decompressobj(), content[start : start + length]
                # In parts, because a few bytes may stand for gigabytes.
                while rest and not inflater.eof:
                    inflater.decompress(rest, INFLATED_AT_ONCE)
                    rest = inflater.unconsumed_tail


def _is_broken_png(content: bytes) -> bool:
    """Whether a chunk of a PNG is longer than the rest of the file, or one with pixels differs from its checksum.

    OpenCV would allocate such a length, gigabytes even, and does not check an animation.
    """
    if not content.startswith(PNG_START):
        return False
    place = len(PNG_START)
    while place + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        name, end = content[place + 4 : place + 8], place + length + 12
        if name == b"IEND":
            return False
        # Each chunk is its length, its name, the data, and the checksum of name and data.
        if end > len(content):
            return True
        checksum = zlib.crc32(content[place + 4 : end - 4]).to_bytes(4, "big")
        if name in (b"IHDR", b"PLTE", b"IDAT", b"fdAT") and checksum != content[end - 4 : end]:
            return True
        place = end
    return False


class _Header(NamedTuple):
    """What the header says: the number of pixels, and whether it is a JPEG that is to be shown as it is stored."""

    pixels: int
    is_upright: bool


def _read_header(content: bytes) -> _Header | None:
    """The header of a picture, before it is decoded; None if Pillow cannot read it."""
    try:
        # Pillow warns about large pictures and refuses very large ones; the limit here is our own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as picture:
                return _Header(picture.width * picture.height, _is_upright(picture))
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        return _Header(int(found[1]) if found else MAX_PIXELS + 1, True)
    except Exception:  # Pillow raises many kinds of error on a damaged header
        return None


def _is_upright(picture: Image.Image) -> bool:
    """Whether the metadata of a JPEG say surely that it is to be shown as it is stored."""
    try:
        # For a PNG Pillow would decode the whole picture.
        return isinstance(picture, JpegImageFile) and picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # Pillow raises many kinds of error on damaged metadata
        return False


def check_picture(picture: np.ndarray) -> None:
    """Check that a picture is an array (H, W, 3) uint8 of one to `MAX_PIXELS` pixels.

    Raises:
        ValueError: If it is anything else.
    """
    wanted = f"a picture must be an array (H, W, 3) uint8 of 1 to {MAX_PIXELS:,} pixels"
    if not isinstance(picture, np.ndarray):
        raise ValueError(f"{wanted}, not {type(picture).__name__}")
    if np.ma.is_masked(picture):
        raise ValueError(f"{wanted}, without masked values")
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

    Raises:
        ValueError: If it is refused by `check_picture`.
    """
    check_picture(image)
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
    check_instance("images", rgb, np.ndarray)
    if rgb.dtype != np.uint8 or rgb.ndim < 3 or rgb.shape[-1] != 3:
        raise ValueError(f"expected uint8 RGB of shape (..., H, W, 3), got {rgb.dtype} {rgb.shape}")
    image = torch.from_numpy(np.ascontiguousarray(rgb)).movedim(-1, -3)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return ((image.float() / 255 - mean) / std).contiguous()
