"""What the demo shows: landmarks on the frames, two methods side by side with their jitter, animations."""

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np

from utils.drawing import bgr, draw_text
from utils.metrics import frame_shake

COLOURS = ("#ff4f9a", "#35d0ff", "#ffd21f")
"""Of the methods, in their order."""

BACKGROUND = (32, 28, 26)

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


def side_by_side(
    panels: dict[str, np.ndarray], meters: dict[str, JitterMeter], colours: Sequence[str] = COLOURS
) -> np.ndarray:
    """Pictures beside each other under their titles, and below them the jitter of each over the last frames.

    Args:
        panels: Two or more pictures (H, W, 3) uint8 BGR of one size, by their titles.
        meters: Of the same titles.
        colours: Of the curves, in their order.

    Returns:
        (H + M, W of all, 3) uint8 BGR.
    """
    top = np.hstack(list(panels.values()))
    height = max(18, round(0.07 * top.shape[0]))
    strip = np.full((5 * height, top.shape[1], 3), BACKGROUND, np.uint8)
    highest = max([FULL_SCALE, *(value for meter in meters.values() for value in meter.history if value == value)])
    for index, (title, colour) in enumerate(zip(panels, colours, strict=False)):
        mean = meters[title].mean
        left = index * top.shape[1] // len(panels) + height // 2
        text = f"{title}: jitter {'-' if np.isnan(mean) else format(mean, '.2f')} %"
        draw_text(strip, text, (left, round(1.2 * height)), height, colour)
        values = np.array(meters[title].history)
        across = np.arange(len(values)) * (strip.shape[1] - 1) / (METER_FRAMES - 1)
        down = strip.shape[0] - 2 - (strip.shape[0] - 2 * height) * values / highest
        known = np.isfinite(down)
        curve = np.round(np.column_stack([across, down])[known]).astype(np.int32)
        cv2.polylines(strip, [curve[:, None]], False, bgr(colour), max(2, height // 8), cv2.LINE_AA)
    return np.vstack([top, strip])
