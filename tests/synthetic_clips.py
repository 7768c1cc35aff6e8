"""Clips in the layout of WFLW-V: a textured face that moves over a background, with boxes and landmarks."""

from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 160, 120


def write_clip(root: Path, video_id: str, frames: int, seed: int = 0) -> None:
    """Add a clip of `frames` frames to a dataset folder."""
    generator = np.random.default_rng(seed)
    face = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    points = generator.uniform(0.1, 0.9, (98, 2))
    points[60], points[72] = (0.3, 0.4), (0.7, 0.4)
    corners = np.stack([30 + np.arange(frames) % 40, 20 + (2 * np.arange(frames)) % 30], axis=1)
    for folder in ("videos", "bboxes", "landmarks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(
        str(root / "videos" / f"{video_id}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (WIDTH, HEIGHT)
    )
    for x, y in corners.tolist():
        picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        picture[y : y + 60, x : x + 60] = face
        writer.write(picture)
    writer.release()
    # The fifth column is a score, as the boxes of WFLW-V have it.
    np.save(root / "bboxes" / f"{video_id}.npy", np.column_stack([corners, corners + 59.6, np.ones(frames)]))
    np.save(root / "landmarks" / f"{video_id}.npy", corners[:, None] + 60 * points)


def write_split(root: Path, split: str, ids: list[str]) -> None:
    """Write the list of a split."""
    (root / "splits").mkdir(exist_ok=True)
    (root / "splits" / f"{split}_video_IDs.txt").write_text("".join(f"{video_id}\n" for video_id in ids))


def truncate_video(root: Path, video_id: str, frames: int) -> None:
    """Replace the video of a clip by its first frames."""
    path = root / "videos" / f"{video_id}.mp4"
    capture = cv2.VideoCapture(str(path))
    pictures = [capture.read()[1] for _ in range(frames)]
    capture.release()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (WIDTH, HEIGHT))
    for picture in pictures:
        writer.write(picture)
    writer.release()


def delete_video(root: Path, video_id: str) -> None:
    (root / "videos" / f"{video_id}.mp4").unlink()


def empty_video(root: Path, video_id: str) -> None:
    (root / "videos" / f"{video_id}.mp4").write_bytes(b"")


def corrupt_video(root: Path, video_id: str) -> None:
    (root / "videos" / f"{video_id}.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))


def short_video(root: Path, video_id: str) -> None:
    truncate_video(root, video_id, 3)


def one_label_less(root: Path, video_id: str) -> None:
    for folder in ("bboxes", "landmarks"):
        path = root / folder / f"{video_id}.npy"
        np.save(path, np.load(path)[:-1])


def one_box_less(root: Path, video_id: str) -> None:
    path = root / "bboxes" / f"{video_id}.npy"
    np.save(path, np.load(path)[:-1])


def three_columns(root: Path, video_id: str) -> None:
    path = root / "bboxes" / f"{video_id}.npy"
    np.save(path, np.load(path)[:, :3])


def nan_in_boxes(root: Path, video_id: str) -> None:
    path = root / "bboxes" / f"{video_id}.npy"
    boxes = np.load(path)
    boxes[2, 1] = np.nan
    np.save(path, boxes)


def box_without_area(root: Path, video_id: str) -> None:
    path = root / "bboxes" / f"{video_id}.npy"
    boxes = np.load(path)
    boxes[2, 2] = boxes[2, 0]
    np.save(path, boxes)


def points_68(root: Path, video_id: str) -> None:
    path = root / "landmarks" / f"{video_id}.npy"
    np.save(path, np.load(path)[:, :68])


def nan_in_landmarks(root: Path, video_id: str) -> None:
    path = root / "landmarks" / f"{video_id}.npy"
    landmarks = np.load(path)
    landmarks[3, 5, 0] = np.nan
    np.save(path, landmarks)


def truncated_array(root: Path, video_id: str) -> None:
    path = root / "landmarks" / f"{video_id}.npy"
    path.write_bytes(path.read_bytes()[:500])


def pickled_array(root: Path, video_id: str) -> None:
    np.save(root / "landmarks" / f"{video_id}.npy", np.array([{}]), allow_pickle=True)


DAMAGES = {
    delete_video: "videos/b.mp4: no such file",
    empty_video: "videos/b.mp4: is not a video that can be decoded",
    corrupt_video: "videos/b.mp4: is not a video that can be decoded",
    short_video: "videos/b.mp4: ends after 3 of its 6 frames",
    one_label_less: "videos/b.mp4: has more than the 5 frames that are labelled",
    one_box_less: "boxes for 5 frames but landmarks for 6",
    three_columns: "bboxes/b.npy: has shape (6, 3), expected (frames, 4)",
    nan_in_boxes: "bboxes/b.npy: frame 2 holds a number that is not finite",
    box_without_area: "bboxes/b.npy: frame 2: box",
    points_68: "landmarks/b.npy: has shape (6, 68, 2), expected (frames, 98, 2)",
    nan_in_landmarks: "landmarks/b.npy: frame 3 holds a number that is not finite",
    truncated_array: "landmarks/b.npy: is not an array of numbers that can be read",
    pickled_array: "landmarks/b.npy: is not an array of numbers that can be read",
}
"""What can be wrong with a clip `b` of 6 frames, and how the reason begins."""
