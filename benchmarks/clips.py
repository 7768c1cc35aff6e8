"""Inputs of the benchmarks, cut from data sets: few faces, few clips, a clip in another size."""

from pathlib import Path

from utils.errors import InputError

SIZE = (640, 480)


def few_faces(dataset: Path, folder: Path) -> Path:
    """A copy of pre-cropped WFLW with the first face of every list.

    Raises:
        InputError: the data set has another layout.
    """
    lists = sorted(dataset.glob("test*.txt"))
    if not lists:
        raise InputError(f"{dataset}: no pre-cropped WFLW; give the folder that holds test.txt")
    few = folder / "few_faces"
    few.mkdir()
    for path in lists:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (few / path.name).write_text(lines[0], encoding="utf-8")
        (few / path.stem).symlink_to((dataset / path.stem).resolve(), target_is_directory=True)
    return few


def few_clips(dataset: Path, folder: Path) -> Path:
    """A copy of WFLW-V with its first clip.

    Raises:
        InputError: the data set has no clip.
    """
    videos = sorted((dataset / "videos").glob("*.mp4"))
    if not videos:
        raise InputError(f"{dataset}: no WFLW-V; give the folder that holds videos/")
    few, name = folder / "few_clips", videos[0].stem
    for kind, suffix in (("videos", ".mp4"), ("bboxes", ".npy"), ("landmarks", ".npy")):
        (few / kind).mkdir(parents=True)
        (few / kind / f"{name}{suffix}").symlink_to((dataset / kind / f"{name}{suffix}").resolve())
    (few / "splits").mkdir()
    (few / "splits" / "easy_video_IDs.txt").write_text(f"{name}\n", encoding="utf-8")
    return few


def make_clip(video: Path, path: Path, size: tuple[int, int], copies: int = 1, frames: int | None = None) -> Path:
    """Write a video in another size, several times side by side, or of another length.

    Args:
        video: to be read; all its frames are held in memory.
        path: to be written.
        size: width, height in pixels.
        copies: how often the picture is in a frame, on a grid.
        frames: number of frames, played forwards and backwards in turn; None for the video's own.
    """
    import cv2
    import numpy as np

    from utils.sources import open_source, read_frames
    from utils.writers import VideoWriter

    columns = int(np.ceil(np.sqrt(copies)))
    rows = -(-copies // columns)
    width, height = size[0] // columns, size[1] // rows
    source = open_source(str(video))
    canvases = []
    for frame in read_frames(source):
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC)
        canvas = np.zeros((size[1], size[0], 3), np.uint8)
        for copy in range(copies):
            y, x = height * (copy // columns), width * (copy % columns)
            canvas[y : y + height, x : x + width] = small
        canvases.append(canvas)
    with VideoWriter(path, source.rate) as writer:
        there_and_back = canvases + canvases[-2:0:-1]
        for number in range(len(canvases) if frames is None else frames):
            writer.write(there_and_back[number % len(there_and_back)])
    return path
