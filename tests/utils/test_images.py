"""Picture files: the pixels of OpenCV, and a damage that can be noticed is never silent."""

import io
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from utils.errors import InputError
from utils.images import read_bgr

FACE = Path(__file__).parents[2] / "datasets" / "sample" / "test" / "peter.jpg"


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    """The sample face as another kind of JPEG."""
    content = io.BytesIO()
    Image.open(FACE).convert(mode).resize((90, 61)).save(content, "JPEG", **options)
    return content.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return jpeg(exif=exif)


KINDS = {
    "progressive": jpeg(progressive=True),
    "4:4:4": jpeg(subsampling=0),
    "4:2:2": jpeg(subsampling=1),
    "RGB": jpeg(keep_rgb=True),
    "restart markers": jpeg(restart_marker_blocks=1),
    "grey": jpeg("L"),
    "CMYK": jpeg("CMYK"),
    "bytes behind its end": jpeg() + b"abc",
} | {f"orientation {value}": turned(value) for value in range(1, 9)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_of_any_kind_has_the_pixels_and_the_orientation_of_opencv(kind: str, tmp_path: Path, capfd):
    path = tmp_path / "face.jpg"
    path.write_bytes(KINDS[kind])
    expected = cv2.imread(str(path))
    np.testing.assert_array_equal(read_bgr(path)[0], expected)
    assert expected.shape == ((90, 61, 3) if kind[-1] in "5678" else (61, 90, 3))
    assert capfd.readouterr().err == ""


def without_a_piece(content: bytes) -> bytes:
    """The data of a scan end before all blocks are there, and the file goes on to its end."""
    return content[: len(content) // 2] + b"\xff\xd9"


def without_a_restart_marker(content: bytes) -> bytes:
    return content.replace(b"\xff\xd3", b"\xff\xd5", 1)


@pytest.mark.parametrize(
    "content",
    [
        without_a_piece(jpeg()),
        without_a_piece(jpeg(progressive=True)),
        without_a_piece(turned(6)),
        without_a_restart_marker(jpeg(restart_marker_blocks=1)),
        jpeg()[:-2],
    ],
)
def test_a_jpeg_whose_data_libjpeg_would_make_up_is_refused_by_name(content: bytes, tmp_path: Path):
    path = tmp_path / "face.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}: is damaged \(.*\); get it again"):
        read_bgr(path)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_in_which_libjpeg_skips_bytes_is_read_with_a_warning_that_names_it(orientation, tmp_path, capsys):
    whole, padded = tmp_path / "whole.jpg", tmp_path / "padded.jpg"
    content = turned(orientation)
    whole.write_bytes(content)
    padded.write_bytes(content[:-2] + bytes(64) + content[-2:])
    for _ in range(2):
        np.testing.assert_array_equal(read_bgr(padded)[0], read_bgr(whole)[0])
    warning = f"warning: {padded}: may be damaged (Corrupt JPEG data: "
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(warning)
    assert "extraneous bytes" in line


@pytest.mark.parametrize("name", [b"IDAT", b"tEXt", b"IEND"])
def test_a_png_with_a_part_that_is_longer_than_the_file_is_refused(name: bytes, tmp_path: Path):
    content = io.BytesIO()
    Image.open(FACE).resize((90, 61)).save(content, "PNG")
    whole = content.getvalue()
    place = whole.index(b"IDAT") - 4
    path = tmp_path / "face.png"
    path.write_bytes(whole)
    assert read_bgr(path)[0].shape == (61, 90, 3)
    path.write_bytes(whole[:place] + (2**30).to_bytes(4, "big") + name + whole[place + 8 :])
    with pytest.raises(InputError, match=r"face\.png: cannot be decoded as a picture"):
        read_bgr(path)


@pytest.mark.parametrize("predictor", [1, 2])
def test_a_tiff_whose_deflate_data_do_not_match_their_checksum_is_refused(predictor: int, tmp_path: Path):
    path = tmp_path / "face.tif"
    face = Image.open(FACE).resize((90, 61))
    face.save(path, compression="tiff_adobe_deflate", tiffinfo={317: predictor, 278: 8})
    np.testing.assert_array_equal(read_bgr(path)[0][..., ::-1], np.asarray(face))
    with Image.open(path) as picture:
        ends = np.add(picture.tag_v2[273], picture.tag_v2[279])
    assert len(ends) == 8
    whole = path.read_bytes()
    for end in ends:
        damaged = bytearray(whole)
        damaged[end - 1] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"face\.tif: cannot be decoded as a picture"):
            read_bgr(path)


def test_a_png_whose_pixels_do_not_match_their_checksum_is_refused_in_an_animation_too(tmp_path: Path):
    content = io.BytesIO()
    frames = [Image.open(FACE).resize((90, 61)).rotate(angle) for angle in (0, 9)]
    frames[0].save(content, "PNG", save_all=True, append_images=frames[1:])
    damaged = bytearray(content.getvalue())
    damaged[damaged.index(b"IDAT") + 40] ^= 1
    path = tmp_path / "face.png"
    path.write_bytes(content.getvalue())
    assert read_bgr(path)[0].shape == (61, 90, 3)
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"face\.png: cannot be decoded as a picture"):
        read_bgr(path)


def test_a_tiff_of_an_unknown_compression_of_which_opencv_makes_a_picture_is_refused(tmp_path: Path):
    path = tmp_path / "face.tif"
    Image.open(FACE).resize((90, 61)).save(path)
    content = bytearray(path.read_bytes())
    entry = content.index(struct.pack("<HHI", 259, 3, 1))  # the tag of the compression, one short integer
    content[entry + 8 : entry + 10] = struct.pack("<H", 128)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"face\.tif: cannot be decoded as a picture"):
        read_bgr(path)
