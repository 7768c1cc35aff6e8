import os
import socket
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import cv2
import numpy as np
import pytest
from damage import damage_one_frame
from PIL import Image

from utils import sources
from utils.errors import InputError
from utils.images import MAX_PIXELS, read_bgr
from utils.sources import damage_flags, has_display, open_source, read_frames, read_picture

CLIP = Path(__file__).parents[2] / "datasets" / "sample" / "videos" / "hopper_easy.mp4"


def png_that_claims(width: int, height: int) -> bytes:
    """The beginning of a PNG of another size than it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


CLAIMS = {
    "png": png_that_claims,
    "ppm": lambda width, height: f"P6 {width} {height} 255\n".encode() + bytes(100),
    "bmp": lambda width, height: (
        b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *6 * [0])
    ),
}


@pytest.mark.parametrize("suffix", CLAIMS)
@pytest.mark.parametrize(("width", "height"), [(16_320, 12_240), (60_000, 60_000)])
def test_a_picture_that_claims_to_be_huge_is_refused_before_memory_is_taken(suffix, width, height, tmp_path: Path):
    path = tmp_path / f"huge.{suffix}"
    path.write_bytes(CLAIMS[suffix](width, height))
    with pytest.raises(InputError, match=rf"huge\.{suffix}: a picture of .* pixels is more than 150,000,000"):
        read_picture(path)


def test_a_video_whose_path_is_no_text_is_named_and_does_not_end_the_process(tmp_path: Path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    path.write_bytes(CLIP.read_bytes())
    with pytest.raises(InputError, match="must be valid UTF-8; rename it"):
        open_source(str(path))


def write_video(path: Path, frames: list[np.ndarray], **options: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())


def write_video_at(path: Path, times: np.ndarray, **options: str) -> None:
    """Write noise, a frame at each of the times in seconds."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8), format="bgr24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


UNEVEN_TIMES = np.concatenate([np.arange(30) / 30, 1 + np.arange(10) / 10, [2.5, 6.0]])


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi"])
def test_a_whole_video_of_variable_rate_is_read_without_a_warning(suffix, tmp_path, capsys):
    path = tmp_path / f"uneven.{suffix}"
    write_video_at(path, UNEVEN_TIMES)
    assert len(list(read_frames(open_source(str(path))))) == len(UNEVEN_TIMES)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("times", [np.arange(60) / 30, UNEVEN_TIMES], ids=["even", "uneven"])
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_truncated_video_ends_with_a_warning(suffix, times, tmp_path, capsys):
    path = tmp_path / f"short.{suffix}"
    # An MP4 file that is cut is only readable with its index at the start.
    write_video_at(path, times, **({"movflags": "faststart"} if suffix == "mp4" else {}))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames = list(read_frames(open_source(str(path))))
    assert 0 < len(frames) < len(times)
    assert f"warning: {path}: ends after {len(frames)} of " in capsys.readouterr().err


def test_frames_that_cannot_be_decoded_are_a_reason_for_a_warning(tmp_path, capsys):
    path = tmp_path / "holes.mp4"
    write_video_at(path, np.arange(60) / 30)
    content = bytearray(path.read_bytes())
    content[1000 : len(content) // 2] = bytes(len(content) // 2 - 1000)
    path.write_bytes(content)
    frames = list(read_frames(open_source(str(path))))
    assert len(frames) < 50
    assert f"warning: {path}: ends after {len(frames)} of 60 frames" in capsys.readouterr().err


def test_a_frame_that_the_decoder_repairs_is_a_reason_for_a_warning(tmp_path, capsys):
    assert not any(damage_flags(CLIP))
    expected = len(list(read_frames(open_source(str(CLIP)))))
    assert capsys.readouterr().err == ""
    path = tmp_path / "damaged.mp4"
    path.write_bytes(damage_one_frame(CLIP.read_bytes()))
    flags = list(damage_flags(path))
    assert any(flags) and len(flags) == expected
    assert len(list(read_frames(open_source(str(path))))) == expected
    assert f"warning: {path}: frame {flags.index(True)} " in capsys.readouterr().err


def write_lossless(path: Path, count: int, **options: str) -> None:
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(count):
            frame = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("options", [{"level": "1"}, {"level": "3", "slices": "4"}, {"level": "3", "slicecrc": "0"}])
def test_a_whole_lossless_video_has_no_damaged_frame(options, tmp_path: Path):
    write_lossless(tmp_path / "whole.mkv", 8, **options)
    assert list(damage_flags(tmp_path / "whole.mkv")) == [False] * 8


def test_a_lossless_frame_whose_checksum_is_wrong_is_a_reason_for_a_warning(tmp_path: Path, capsys):
    path = tmp_path / "damaged.mkv"
    write_lossless(path, 8)
    level = av.logging.get_level()
    path.write_bytes(damage_one_frame(path.read_bytes()))
    flags = list(damage_flags(path))
    assert len(flags) == 8 and sum(flags) == 1
    assert av.logging.get_level() == level
    assert len(list(read_frames(open_source(str(path))))) == 8
    assert capsys.readouterr().err == (
        f"warning: {path}: frame {flags.index(True)} is damaged; landmarks there and just after may be wrong\n"
    )


def test_an_interlaced_video_is_read_or_refused_by_name(tmp_path: Path):
    frames = [np.full((96, 128, 3), 200, np.uint8)] * 5
    write_video(tmp_path / "interlaced.mp4", frames, flags="+ilme+ildct")
    write_video(tmp_path / "progressive.mp4", frames)
    names = ["progressive.mp4"] + (["interlaced.mp4"] if int(cv2.__version__.split(".")[0]) < 5 else [])
    for name in names:
        read = list(read_frames(open_source(str(tmp_path / name))))
        assert len(read) == 5
        assert all(abs(frame.mean() - 200) < 5 for frame in read)
    if "interlaced.mp4" not in names:
        with pytest.raises(InputError, match=r"interlaced\.mp4: OpenCV 5 cannot read interlaced video"):
            open_source(str(tmp_path / "interlaced.mp4"))


def test_text_is_no_video(tmp_path: Path):
    (tmp_path / "list.txt").write_text("a face\n" * 100)
    with pytest.raises(InputError, match=r"list\.txt: is text"):
        open_source(str(tmp_path / "list.txt"))


def test_the_largest_pictures_of_cameras_are_allowed():
    assert MAX_PIXELS > 108_000_000


def test_a_tiff_that_opencv_decodes_in_spite_of_damage_is_refused(tmp_path: Path):
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path = tmp_path / "face.tiff"
    Image.fromarray(picture).save(path, compression="tiff_adobe_deflate")
    np.testing.assert_array_equal(read_bgr(path)[0], picture[..., ::-1])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_bgr(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "ppm", "pgm"])
def test_a_damaged_picture_is_an_error_that_names_it_or_a_picture(suffix: str, tmp_path: Path):
    generator = np.random.default_rng(0)
    path = tmp_path / f"face.{suffix}"
    shape = (40, 50) if suffix == "pgm" else (40, 50, 3)
    assert cv2.imwrite(str(path), generator.integers(0, 255, shape, dtype=np.uint8))
    whole = path.read_bytes()
    for number in range(60):
        content = bytearray(whole)
        if number % 3 == 0:
            content = content[: generator.integers(len(whole))]
        for place in generator.integers(0, min(len(content), 200) or 1, 6) if content else ():
            content[place] = generator.integers(256)
        path.write_bytes(bytes(content))
        try:
            picture = read_picture(path)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert picture.dtype == np.uint8
            assert picture.ndim == 3
            assert picture.size > 0


def test_transparency_is_white(tmp_path: Path):
    Image.new("RGBA", (4, 3), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png") == 255).all()


@pytest.mark.parametrize("content", [b"", b"x", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "face.png").write_bytes(content)
    with pytest.raises(InputError, match=r"face\.png: cannot be decoded as a picture"):
        read_bgr(tmp_path / "face.png")


@pytest.mark.parametrize("text", ["99999999999", "100", "9" * 5000])
def test_a_webcam_that_cannot_be_is_refused(text: str):
    with pytest.raises(InputError, match="the largest index is 99"):
        open_source(text)


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        open_source(str(tmp_path))


def test_a_display_that_does_not_answer_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for name in (":97", ":97.0", "localhost:4321", "nonsense", ""):
        monkeypatch.setenv("DISPLAY", name)
        assert not has_display()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        number = server.getsockname()[1] - 6000
        if number < 10_000:
            monkeypatch.setenv("DISPLAY", f"127.0.0.1:{number}.0")
            assert has_display()


def test_a_dead_wayland_display_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sources.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-7")
    assert not has_display()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "wayland-7"))
        server.listen()
        assert has_display()


def test_metadata_that_are_no_text_do_not_matter(tmp_path: Path):
    content = CLIP.read_bytes()
    encoder = content.index(b"Lavf")
    damaged = tmp_path / "clip.mp4"
    damaged.write_bytes(content[:encoder] + b"\xb8\xff\xb8\xff" + content[encoder + 4 :])
    assert len(list(read_frames(open_source(str(damaged))))) == 60
