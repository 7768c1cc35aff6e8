"""Methods side by side on a face: enlarged, an eye enlarged four times as much, trails, and their jitter."""

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np

from utils.drawing import Stroke, bgr, draw_face, draw_strokes, draw_text
from utils.geometry import landmark_box, transform_points
from utils.landmark_groups import landmark_group
from utils.metrics import frame_shake

COLOURS = ("#ff8f5a", "#35d0ff", "#7dff4d")
"""Of the methods, in their order."""

BACKGROUND = (32, 28, 26)

PANEL_SIDE = 400
"""Pixels of a panel."""

INSET_SIDE, INSET_ZOOM = 176, 4
"""Pixels of the inset, and how much larger than the panel it shows the eye."""

VIEW_SCALE = 1.7
"""The side of what a panel shows, in longer sides of the face."""

VIEW_SHARE = 0.2
"""How far the view follows the face in a frame."""

TRAIL_FRAMES = 15

TRAIL_POINTS = (60, 64, 96)
"""Of the right eye: its corners and the pupil."""

METER_FRAMES = 60
"""How far back the curves of the jitter meter go."""

FULL_SCALE = 1.0
"""Of the jitter meter at least, in percent of the face."""


class JitterMeter:
    """The jitter of one method over the last frames, averaged over faces."""

    def __init__(self) -> None:
        self.history: deque[float] = deque(maxlen=METER_FRAMES)
        self._recent: dict[int, deque[np.ndarray]] = {}
        self._sum, self._count = 0.0, 0

    def add(self, faces: dict[int, np.ndarray]) -> None:
        """Take the landmarks (K, 2) of the faces of the next frame, by their numbers."""
        self._recent = {number: self._recent.get(number, deque(maxlen=3)) for number in faces}
        for number, landmarks in faces.items():
            self._recent[number].append(landmarks)
        shakes = [frame_shake(recent) for recent in self._recent.values() if len(recent) == 3]
        self.history.append(float(np.mean(shakes)) if shakes else np.nan)
        if shakes:
            self._sum, self._count = self._sum + self.history[-1], self._count + 1

    @property
    def mean(self) -> float:
        """Over all frames so far; NaN before the third."""
        return self._sum / self._count if self._count else float("nan")


class SideBySide:
    """Shows what several methods find in the same frames, a panel each: the face of the lowest number.

    Args:
        titles: of the methods, two or three; the view follows the last one.

    Attributes:
        meters: the jitter of each method, over all faces.
    """

    def __init__(self, titles: Sequence[str]):
        self.meters = {title: JitterMeter() for title in titles}
        self._trails: dict[str, deque[np.ndarray]] = {title: deque(maxlen=TRAIL_FRAMES) for title in titles}
        self._number: int | None = None
        self._view = np.zeros(3)
        self._inset = np.zeros(2)

    def draw(self, frame: np.ndarray, faces: dict[str, dict[int, np.ndarray]]) -> np.ndarray:
        """The next frame.

        Args:
            frame: (H, W, 3) uint8 BGR.
            faces: landmarks (98, 2) by the number of the face, by title.

        Returns:
            (`PANEL_SIDE` + M, width of all panels, 3) uint8 BGR.
        """
        for title, of_method in faces.items():
            finite = {number: points for number, points in of_method.items() if np.isfinite(points).all()}
            self.meters[title].add(finite)
        self._follow(frame, faces[list(self.meters)[-1]])
        matrix = view_matrix(self._view, PANEL_SIDE)
        panels = []
        for (title, trail), colour in zip(self._trails.items(), COLOURS, strict=False):
            points = faces[title].get(self._number) if self._number is not None else None
            if points is not None:
                # In the view, which goes along with the head: what is left is mostly jitter.
                trail.append((points - self._view[:2]) / self._view[2])
            panels.append(self._panel(frame, matrix, points, trail, colour))
        return np.vstack([np.hstack(panels), draw_meters(self.meters, PANEL_SIDE * len(panels))])

    def _follow(self, frame: np.ndarray, faces: dict[int, np.ndarray]) -> None:
        points = faces.get(self._number) if self._number is not None else None
        if points is None and faces:
            self._number = min(faces)
            points = faces[self._number]
            for trail in self._trails.values():
                trail.clear()
            self._view = np.zeros(3)
        if points is not None and np.isfinite(points).all():
            box = landmark_box(points)
            view = np.append((box[:2] + box[2:]) / 2, VIEW_SCALE * np.max(box[2:] - box[:2]))
            eye = (points[list(landmark_group("right_eye").points)].mean(axis=0) - view[:2]) / view[2]
            known = self._view[2] > 0
            self._view = self._view + VIEW_SHARE * (view - self._view) if known else view
            self._inset = self._inset + VIEW_SHARE * (eye - self._inset) if known else eye
        elif self._view[2] == 0:
            height, width = frame.shape[:2]
            self._view = np.array([width / 2, height / 2, max(height, width)])

    def _panel(
        self, frame: np.ndarray, matrix: np.ndarray, points: np.ndarray | None, trail: Sequence[np.ndarray], colour: str
    ) -> np.ndarray:
        panel = cv2.warpAffine(frame, matrix, (PANEL_SIDE, PANEL_SIDE), flags=cv2.INTER_CUBIC)
        if points is None:
            return panel
        draw_face(panel, transform_points(points, matrix))
        side = self._view[2] * INSET_SIDE / PANEL_SIDE / INSET_ZOOM
        centre = self._view[:2] + self._view[2] * self._inset
        close = view_matrix(np.append(centre, side), INSET_SIDE)
        inset = cv2.warpAffine(frame, close, (INSET_SIDE, INSET_SIDE), flags=cv2.INTER_CUBIC)
        strokes = []
        for point in TRAIL_POINTS:
            line = self._view[:2] + self._view[2] * np.array([place[point] for place in trail])
            line = transform_points(line, close)
            strokes.append(Stroke([line] if len(line) > 1 else [], 1.6, colour))
            strokes.append(Stroke([np.stack([line[-1], line[-1]])], 5.0, "#ffffff"))
        draw_strokes(inset, strokes)
        inset = cv2.copyMakeBorder(inset, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=bgr(colour))
        panel[-inset.shape[0] :, -inset.shape[1] :] = inset
        return panel


def view_matrix(view: np.ndarray, side: int) -> np.ndarray:
    """(2, 3) from a frame to a square of `side` pixels; a view (3,) is its centre and its side in the frame."""
    zoom = side / view[2]
    return np.column_stack([zoom * np.eye(2), side / 2 - zoom * view[:2]])


def draw_meters(meters: dict[str, JitterMeter], width: int) -> np.ndarray:
    """The titles of the methods, and below them the jitter of each over the last frames.

    Args:
        meters: by title.
        width: in pixels.

    Returns:
        (M, width, 3) uint8 BGR.
    """
    height = 22
    strip = np.full((5 * height, width, 3), BACKGROUND, np.uint8)
    highest = max([FULL_SCALE, *(value for meter in meters.values() for value in meter.history if value == value)])
    for index, ((title, meter), colour) in enumerate(zip(meters.items(), COLOURS, strict=False)):
        left = index * width // len(meters) + height // 2
        text = f"{title}: jitter {'-' if np.isnan(meter.mean) else format(meter.mean, '.2f')} %"
        draw_text(strip, text, (left, round(1.2 * height)), height, colour)
        values = np.array(meter.history)
        across = np.arange(len(values)) * (width - 1) / (METER_FRAMES - 1)
        down = strip.shape[0] - 4 - (strip.shape[0] - 2 * height) * values / highest
        known = np.isfinite(down)
        curve = np.round(np.column_stack([across, down])[known]).astype(np.int32)
        cv2.polylines(strip, [curve[:, None]], False, bgr(colour), 2, cv2.LINE_AA)
    return strip
