from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.errors import OutputError
from utils.writers import VideoWriter, fit, open_writer, write_picture


def frame(height: int, width: int, grey: int = 200) -> np.ndarray:
    return np.full((height, width, 3), grey, np.uint8)


def read_back(path: Path) -> list[np.ndarray]:
    if path.suffix != ".mp4":
        with Image.open(path) as animation:
            frames = []
            for number in range(getattr(animation, "n_frames", 1)):
                animation.seek(number)
                frames.append(np.asarray(animation.convert("RGB"))[..., ::-1])
            return frames
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, image = capture.read()
        if not there:
            return frames
        frames.append(image)


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_frames_come_back_in_number_and_size(suffix: str, tmp_path: Path):
    path = tmp_path / "made" / f"overlay{suffix}"
    with open_writer(path, 25) as writer:
        for grey in (40, 120, 200):
            writer.write(frame(48, 64, grey))
    frames = read_back(path)
    assert [image.shape for image in frames] == 3 * [(48, 64, 3)]
    assert [round(float(image.mean())) for image in frames] == pytest.approx([40, 120, 200], abs=3)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_a_video_without_frames_is_no_file_and_no_error(suffix: str, tmp_path: Path):
    with open_writer(tmp_path / f"overlay{suffix}", 25):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_a_video_that_fails_leaves_the_old_one(suffix: str, tmp_path: Path):
    path = tmp_path / f"overlay{suffix}"
    path.write_text("old")
    with pytest.raises(KeyError), open_writer(path, 25) as writer:
        writer.write(frame(48, 64))
        raise KeyError("a bug")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_frames_of_several_sizes_are_fitted_into_the_first(suffix: str, tmp_path: Path):
    with open_writer(tmp_path / f"overlay{suffix}", 25) as writer:
        for number, (height, width) in enumerate([(48, 64), (100, 30), (1, 1), (49, 65)]):
            writer.write(frame(height, width, 60 * number + 20))
    assert [image.shape for image in read_back(tmp_path / f"overlay{suffix}")] == 4 * [(48, 64, 3)]


def test_fitting_keeps_the_aspect_and_centres():
    fitted = fit(frame(10, 10), 40, 20)
    assert fitted.shape == (20, 40, 3)
    assert (fitted[:, 10:30] == 200).all()
    assert not fitted[:, :10].any()
    assert not fitted[:, 30:].any()


@pytest.mark.parametrize(("suffix", "width"), [(".webp", 17_000), (".gif", 70_000), (".mp4", 20_000)])
def test_frames_too_large_for_the_format_are_an_error_that_names_the_file(suffix: str, width: int, tmp_path: Path):
    with (
        pytest.raises(OutputError, match=rf"overlay\{suffix}: cannot be encoded"),
        open_writer(tmp_path / f"overlay{suffix}", 25) as writer,
    ):
        writer.write(frame(2, width))
    assert list(tmp_path.iterdir()) == []


def test_a_picture_too_large_for_the_format_is_an_error_that_names_the_file(tmp_path: Path):
    with pytest.raises(OutputError, match=r"wide\.jpg: the format cannot hold 70000 x 2 pixels"):
        write_picture(tmp_path / "wide.jpg", frame(2, 70_000))


@pytest.mark.parametrize("write", [lambda path: open_writer(path, 25), lambda path: write_picture(path, frame(4, 4))])
def test_another_suffix_is_refused(write: Callable[[Path], object], tmp_path: Path):
    with pytest.raises(OutputError, match="choose one of these"):
        write(tmp_path / "overlay.txt")


def test_a_video_of_odd_sides_is_written_whole(tmp_path):
    with VideoWriter(tmp_path / "odd.mp4", fps=29.97) as writer:
        for shade in (20, 120, 220):
            writer.write(np.full((51, 65, 3), shade, np.uint8))
    capture = cv2.VideoCapture(str(tmp_path / "odd.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(29.97, abs=0.01)
    frames = [capture.read()[1] for _ in range(3)]
    assert not capture.read()[0]
    assert [frame.shape for frame in frames] == 3 * [(52, 66, 3)]
    assert [frame.mean() for frame in frames] == pytest.approx([20, 120, 220], abs=6)
