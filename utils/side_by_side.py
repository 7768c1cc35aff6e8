"""Several methods on one video side by side: the face, an enlarged eye with trails of its points, the jitter."""

from collections import deque
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from utils.drawing import PART_COLOURS, Stroke, dots, draw_face, draw_strokes, draw_text
from utils.geometry import landmark_box, transform_points
from utils.landmark_groups import LANDMARK_GROUPS
from utils.metrics import frame_shake

BACKGROUND = (32, 28, 26)

PANEL_SIDE = 256
"""Side in pixels of the picture of the face; the inset below it has the same width."""

INSET_HEIGHT, INSET_ZOOM = 144, 4

FACE_SHARE = 0.7
"""Share of a panel that the face fills."""

INSET_GROUP = "right_eye"

TRAIL_POINTS, TRAIL_FRAMES = (60, 62, 64, 66), 15
"""The landmarks with a trail (corners and lids of the eye), and the trail's length in frames."""

FOLLOW = 0.2
"""Share of the way to the face that the view moves in a frame: a slow view does not hide the jitter."""


class JitterMeter:
    """The jitter of one method, averaged over faces and frames."""

    def __init__(self) -> None:
        self._recent: dict[int, deque[np.ndarray]] = {}
        self._sum, self._count = 0.0, 0

    def add(self, faces: Mapping[int, np.ndarray]) -> None:
        """Add the landmarks (K, 2) of the faces of the next frame, by the number of the face."""
        self._recent = {number: self._recent.get(number, deque(maxlen=3)) for number in faces}
        for number, landmarks in faces.items():
            self._recent[number].append(landmarks)
        shakes = [frame_shake(recent) for recent in self._recent.values() if len(recent) == 3]
        shakes = [shake for shake in shakes if np.isfinite(shake)]
        if shakes:
            self._sum, self._count = self._sum + float(np.mean(shakes)), self._count + 1

    @property
    def mean(self) -> float:
        """Mean jitter in percent of the face size, see `utils.metrics.frame_shake`; NaN before the third frame."""
        return self._sum / self._count if self._count else float("nan")


class SideBySide:
    """Draws the frames of a video with the landmarks of several methods, one panel each.

    All panels show the same part of the frame. It smoothly follows the face with the lowest number.

    Args:
        titles: of the methods.

    Attributes:
        meters: the jitter of the methods so far.
    """

    def __init__(self, titles: Sequence[str]):
        self.titles = tuple(titles)
        self.meters = {title: JitterMeter() for title in titles}
        self._trails: dict[str, deque[np.ndarray]] = {}
        self._face: int | None = None
        self._view: np.ndarray | None = None

    def draw(self, frame: np.ndarray, faces: Mapping[str, Mapping[int, np.ndarray]]) -> np.ndarray:
        """The picture of the next frame.

        Args:
            frame: (H, W, 3) uint8 BGR.
            faces: landmarks (98, 2) in pixels of the frame, NaN if the solve failed, by title and number of the face.

        Returns:
            (h, w, 3) uint8 BGR, of the same size for every frame.
        """
        for title in self.titles:
            self.meters[title].add(faces[title])
        view = self._follow(frame, faces)
        return np.hstack([self._panel(frame, view, title, faces[title]) for title in self.titles])

    def _follow(self, frame: np.ndarray, faces: Mapping[str, Mapping[int, np.ndarray]]) -> np.ndarray:
        """Move the view: centre and side of the face and centre of the eye, each the mean over the methods."""
        numbers = set.intersection(*(set(of_method) for of_method in faces.values()))
        numbers = {n for n in numbers if all(np.isfinite(of_method[n]).all() for of_method in faces.values())}
        if not numbers:
            self._face, self._trails = None, {}
            if self._view is None:
                middle, side = np.array(frame.shape[1::-1]) / 2, FACE_SHARE * max(frame.shape[:2])
                self._view = np.array([*middle, side, *middle])
            return self._view
        number = self._face if self._face in numbers else min(numbers)
        landmarks = np.mean([of_method[number] for of_method in faces.values()], axis=0)
        box = landmark_box(landmarks)
        eye = landmarks[list(LANDMARK_GROUPS[INSET_GROUP].points)].mean(axis=0)
        seen = np.array([*(box[:2] + box[2:]) / 2, np.max(box[2:] - box[:2]), *eye])
        if number != self._face or self._view is None:
            self._face, self._view = number, seen
            self._trails = {title: deque(maxlen=TRAIL_FRAMES) for title in self.titles}
        self._view = self._view + FOLLOW * (seen - self._view)
        for title, trail in self._trails.items():
            trail.append(faces[title][number][list(TRAIL_POINTS)])
        return self._view

    def _panel(self, frame: np.ndarray, view: np.ndarray, title: str, faces: Mapping[int, np.ndarray]) -> np.ndarray:
        zoom = FACE_SHARE * PANEL_SIDE / view[2]
        face = view_matrix(view[:2], zoom, PANEL_SIDE, PANEL_SIDE)
        above = cut(frame, face, PANEL_SIDE, PANEL_SIDE)
        for landmarks in faces.values():
            draw_face(above, transform_points(landmarks, face))
        eye = view_matrix(view[3:], INSET_ZOOM * zoom, PANEL_SIDE, INSET_HEIGHT)
        inset = cut(frame, eye, PANEL_SIDE, INSET_HEIGHT)
        self._draw_inset(inset, eye, title, faces)
        heading, height = np.full((28, PANEL_SIDE, 3), BACKGROUND, np.uint8), 17
        draw_text(heading, title, (6, 19), height)
        footing = np.full((28, PANEL_SIDE, 3), BACKGROUND, np.uint8)
        mean = self.meters[title].mean
        jitter = "-" if np.isnan(mean) else f"{mean:.2f} % of the face"
        draw_text(footing, f"jitter {jitter}", (6, 19), height)
        panel = np.vstack([heading, above, inset, footing])
        panel[:, -1] = BACKGROUND
        return panel

    def _draw_inset(self, inset: np.ndarray, eye: np.ndarray, title: str, faces: Mapping[int, np.ndarray]) -> None:
        if self._face is None or self._face not in faces:
            return
        colour = PART_COLOURS["eyes"]
        trail = transform_points(np.array(self._trails[title]), eye)
        lines = [trail[:, point] for point in range(len(TRAIL_POINTS))]
        landmarks = transform_points(faces[self._face], eye)
        contour = [landmarks[list(line)] for line in LANDMARK_GROUPS[INSET_GROUP].lines]
        strokes = [Stroke(contour, 1.2, colour), Stroke(lines, 1.2, "#ffffff")] if len(trail) > 1 else []
        draw_strokes(inset, [*strokes, dots(landmarks[list(TRAIL_POINTS)], 2.5, PART_COLOURS["lips"])])


def view_matrix(centre: np.ndarray, zoom: float, width: int, height: int) -> np.ndarray:
    """(2, 3) matrix from pixels of a frame to pixels of a view of it around a centre."""
    return np.column_stack([zoom * np.eye(2), np.array([width, height]) / 2 - zoom * np.asarray(centre)])


def cut(frame: np.ndarray, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """A view of a frame, (height, width, 3) uint8."""
    smooth = cv2.INTER_AREA if matrix[0, 0] < 1 else cv2.INTER_CUBIC
    return cv2.warpAffine(frame, matrix, (width, height), flags=smooth, borderMode=cv2.BORDER_REPLICATE)
