"""Landmarks and text drawn on pictures, anti-aliased, each line with a thin dark outline.

A picture is (H, W, 3) uint8 BGR; points are (K, 2) x, y in its pixels, where pixel (0, 0) has its centre at (0, 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.geometry import landmark_box
from utils.landmark_groups import LANDMARK_GROUPS, NUM_LANDMARKS, PARTS

PART_COLOURS: dict[str, str] = dict(zip(PARTS, ("#35d0ff", "#ffd21f", "#62ff4d", "#c9a6ff", "#ff4f9a"), strict=True))

TRUE_COLOUR = TEXT_COLOUR = "#ffffff"

OUTLINE_COLOUR = "#101010"

OUTLINE_SHARE = 0.65
"""Opacity of the outline, 0 to 1."""

WIDTH_SHARE, LEAST_WIDTH, LARGEST_WIDTH = 0.006, 0.7, 3.0
"""Width of a line: a share of the face, limited to a range in pixels."""

DOTS_FROM = 120
"""Longer side in pixels of the smallest face whose points are drawn as dots."""

READABLE_SIDE, LARGEST_ZOOM = 640, 8
"""Pictures whose longer side has fewer pixels are enlarged, by a whole number, until it has so many."""

SMALL_SIDE = 40
"""Longer side in pixels of a face below which its inner lips are left out."""

TILE_SIDE = 24
"""Longest piece of a line in pixels."""

_Tiles = tuple[np.ndarray, np.ndarray]
"""The top left corners (S, 2) int x, y of tiles, and what is in their pixels (S, n, n)."""


@dataclass(frozen=True, eq=False)
class Stroke:
    """Lines of one style.

    Attributes:
        lines: (P, 2) points of each.
        width: in pixels; fractions count.
        colour: "#rrggbb".
        radius: if positive, draw the curve at this distance in pixels around the line: a ring around a point.
    """

    lines: Sequence[np.ndarray]
    width: float
    colour: str
    radius: float = 0.0


def bgr(colour: str) -> tuple[int, int, int]:
    """A colour "#rrggbb" as OpenCV takes it."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return blue, green, red


def readable_zoom(picture: np.ndarray) -> int:
    """The whole number by which a picture is enlarged before drawing on it; 1 if it is large enough."""
    return min(LARGEST_ZOOM, -(-READABLE_SIDE // max(picture.shape[:2])))


def enlarge(picture: np.ndarray, zoom: int) -> np.ndarray:
    """A copy of a picture, `zoom` times as large."""
    if zoom == 1:
        return picture.copy()
    return cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)


def enlarge_points(points: np.ndarray, zoom: int) -> np.ndarray:
    """The points of a picture in the enlarged picture."""
    return (points + 0.5) * zoom - 0.5


def draw_faces(
    picture: np.ndarray,
    faces: Sequence[np.ndarray],
    *,
    numbers: Sequence[int] | None = None,
    unsure: Sequence[bool] | None = None,
    colours: dict[str, str] = PART_COLOURS,
) -> np.ndarray:
    """A copy of a picture with the landmarks of its faces; small pictures are enlarged.

    Args:
        picture: is not changed.
        faces: landmarks (98, 2) of every face in pixels of the picture; faces that are not finite are left out.
        numbers: of the faces; written if there are several faces.
        unsure: whether a face is drawn with dashed lines, for every face.
        colours: by part, see `PART_COLOURS`.

    Returns:
        (zoom H, zoom W, 3), see `readable_zoom`.
    """
    zoom = readable_zoom(picture)
    overlay = enlarge(picture, zoom)
    enlarged = [enlarge_points(landmarks, zoom) for landmarks in faces]
    for index, landmarks in enumerate(enlarged):
        draw_face(overlay, landmarks, dashed=bool(unsure and unsure[index]), colours=colours)
    if numbers and len(faces) > 1:
        # Numbers are drawn after the lines of all faces, so that a neighbour does not hide them.
        for number, landmarks in zip(numbers, enlarged, strict=True):
            draw_number(overlay, landmarks, number)
    return overlay


def draw_face(
    picture: np.ndarray, landmarks: np.ndarray, *, dashed: bool = False, colours: dict[str, str] = PART_COLOURS
) -> None:
    """Draw the contours of a face, and its points if it is large; nothing if a landmark is not finite.

    Args:
        picture: is changed.
        landmarks: (98, 2).
        dashed: whether the contours are dashed.
        colours: by part.

    Raises:
        ValueError: If there are not 98 landmarks.
    """
    if landmarks.shape != (NUM_LANDMARKS, 2):
        raise ValueError(f"landmarks must have shape ({NUM_LANDMARKS}, 2), got {landmarks.shape}")
    if not np.isfinite(landmarks).all():
        return
    side = face_side(landmarks)
    width = line_width(side)
    strokes = []
    for part, colour in colours.items():
        groups = [group for name, group in LANDMARK_GROUPS.items() if group.part == part and _is_seen(name, side)]
        lines = [landmarks[list(line)] for group in groups for line in group.lines if len(line) > 1]
        if dashed:
            lines = [dash for line in lines for dash in dashes(line, max(3.0, 0.03 * side))]
        strokes.append(Stroke(lines, width, colour))
        if side > DOTS_FROM and not dashed:
            strokes.append(dots(landmarks[[point for group in groups for point in group.points]], 1.2 * width, colour))
    draw_strokes(picture, strokes)


def _is_seen(name: str, side: float) -> bool:
    """Whether a group is drawn on a face: the inner lips of a small face would merge with the outer ones."""
    return name != "inner_lips" or side >= SMALL_SIDE


def draw_number(picture: np.ndarray, landmarks: np.ndarray, number: int) -> None:
    """Write the number of a face above it, inside the picture."""
    if not np.isfinite(landmarks).all():
        return
    box = landmark_box(landmarks)
    height = float(np.clip(0.2 * face_side(landmarks), 9, 26))
    left = int(np.clip(box[0], 0, max(0, picture.shape[1] - height)))
    base = int(np.clip(box[1] - 0.3 * height, height, max(height, picture.shape[0] - 1)))
    draw_text(picture, str(number), (left, base), height)


def draw_rings(picture: np.ndarray, points: np.ndarray, colour: str = TRUE_COLOUR) -> None:
    """Draw true landmarks (K, 2) as rings, so that the picture inside them stays visible."""
    side = face_side(points)
    centres = [np.stack([point, point]) for point in points]
    draw_strokes(picture, [Stroke(centres, 0.8 * line_width(side), colour, max(2.0, 0.011 * side))])


def face_side(landmarks: np.ndarray) -> float:
    """The longer side in pixels of the tight box around landmarks."""
    box = landmark_box(landmarks)
    return float(np.max(box[2:] - box[:2]))


def line_width(side: float) -> float:
    """Width in pixels of the lines of a face with this longer side."""
    return float(np.clip(WIDTH_SHARE * side, LEAST_WIDTH, LARGEST_WIDTH))


def dashes(line: np.ndarray, length: float) -> list[np.ndarray]:
    """Cut a line (P, 2) into dashes of a length in pixels with gaps of the same length."""
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    count = max(1, round(along[-1] / (2 * length)))
    period = along[-1] / count

    def at(place: float) -> np.ndarray:
        return np.array([np.interp(place, along, line[:, axis]) for axis in (0, 1)])

    pieces = []
    for start in period * np.arange(count):
        inside = line[(along > start) & (along < start + period / 2)]
        pieces.append(np.vstack([at(start), inside, at(start + period / 2)]))
    return pieces


def dots(points: np.ndarray, radius: float, colour: str) -> Stroke:
    """Discs at points (K, 2)."""
    return Stroke([np.stack([point, point]) for point in points], 2 * radius, colour)


def draw_strokes(picture: np.ndarray, strokes: Sequence[Stroke]) -> None:
    """Draw lines over one dark outline of all of them.

    Args:
        picture: is changed; lines outside it are cut off.
        strokes: later ones are drawn over earlier ones; strokes of one colour are drawn together.
    """
    outline: list[_Tiles] = []
    by_colour: dict[str, list[_Tiles]] = {}
    for stroke in strokes:
        if not len(stroke.lines):
            continue
        around = outline_width(stroke.width)
        corners, distance = _distances(stroke, stroke.width / 2 + around, picture)
        outline.append((corners, _cover(distance, stroke.width + 2 * around)))
        by_colour.setdefault(stroke.colour, []).append((corners, _cover(distance, stroke.width)))
    _blend(picture, outline, OUTLINE_COLOUR, OUTLINE_SHARE)
    for colour, tiles in by_colour.items():
        _blend(picture, tiles, colour, 1.0)


def outline_width(width: float) -> float:
    """Width in pixels of the outline on either side of a line."""
    return 0.5 if width < 1 else max(0.6, 0.3 * width)


def _distances(stroke: Stroke, reach: float, picture: np.ndarray) -> _Tiles:
    """The distance in pixels from the pixels around a stroke to it, up to `reach`, in small tiles along its lines."""
    # OpenCV and NumPy have limited integers: points far outside are moved closer, which changes only unseen lines.
    limit = 4 * max(picture.shape[:2])
    lines = [np.clip(line, -limit, limit) for line in stroke.lines]
    starts, ends = np.concatenate([line[:-1] for line in lines]), np.concatenate([line[1:] for line in lines])
    parts = np.ceil(np.abs(ends - starts).max(axis=1) / TILE_SIDE).astype(int).clip(1)
    # Long pieces are cut, so that their tiles stay small: part i of n goes from i / n to (i + 1) / n.
    part = np.concatenate([np.arange(count) for count in parts])[:, None]
    starts, steps = np.repeat(starts, parts, axis=0), np.repeat((ends - starts) / parts[:, None], parts, axis=0)
    starts = starts + part * steps
    corners = np.floor(np.minimum(starts, starts + steps) - reach - stroke.radius).astype(int)
    side = int(np.ceil(np.abs(steps).max() + 2 * (reach + stroke.radius))) + 2
    seen = ((corners > -side) & (corners < picture.shape[1::-1])).all(axis=1)
    starts, steps, corners = starts[seen], steps[seen].astype(np.float32), corners[seen]
    offset = (corners - starts).astype(np.float32)[:, :, None] + np.arange(side, dtype=np.float32)
    across, down = offset[:, 0, None, :], offset[:, 1, :, None]
    x, y = steps[:, 0, None, None], steps[:, 1, None, None]
    place = np.clip((across * x + down * y) / np.maximum(x * x + y * y, 1e-6), 0, 1)
    distance = np.hypot(across - place * x, down - place * y)
    return corners, np.abs(distance - stroke.radius) if stroke.radius else distance


def _cover(distance: np.ndarray, width: float) -> np.ndarray:
    """The share of each pixel that a line of this width covers, measured across the line."""
    half = np.float32(width / 2)
    return np.clip(np.minimum(distance + 0.5, half) - np.maximum(distance - 0.5, -half), 0, 1)


def _blend(picture: np.ndarray, tiles: Sequence[_Tiles], colour: str, share: float) -> None:
    """Mix a colour into a picture by the cover in tiles; where several overlap, the highest counts."""
    tiles = [(corners, cover) for corners, cover in tiles if len(corners)]
    if not tiles:
        return
    left, top = np.min([corners.min(axis=0) for corners, _ in tiles], axis=0)
    right, bottom = np.max([corners.max(axis=0) + cover.shape[1] for corners, cover in tiles], axis=0)
    joined = np.zeros((bottom - top, right - left), np.float32)
    for corners, cover in tiles:
        side = cover.shape[1]
        for (x, y), tile in zip((corners - (left, top)).tolist(), cover, strict=True):
            place = joined[y : y + side, x : x + side]
            np.maximum(place, tile, out=place)
    height, width = picture.shape[:2]
    inside = joined[max(0, -top) : height - top, max(0, -left) : width - left]
    region = picture[max(0, top) : bottom, max(0, left) : right]
    rows, columns = np.nonzero(inside)
    opacity = share * inside[rows, columns, None]
    mixed = region[rows, columns] * (1 - opacity) + np.array(bgr(colour), np.float32) * opacity
    region[rows, columns] = np.round(mixed).astype(np.uint8)


def draw_text(picture: np.ndarray, text: str, place: tuple[int, int], height: float, colour: str = TEXT_COLOUR) -> None:
    """Write a line of text with a dark outline; `place` is the left end of its base line, `height` is in pixels."""
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, round(0.7 * height))
    # A thicker font would also be wider in OpenCV 5, so the outline is the shifted text itself.
    steps = (((-1, 0), 0), ((1, 0), 0), ((0, -1), 0), ((0, 1), 0), ((0, 0), 1))
    for (across, down), share in steps:
        shade = tuple(share * part for part in bgr(colour))
        shifted = (place[0] + across, place[1] + down)
        cv2.putText(picture, text, shifted, cv2.FONT_HERSHEY_SIMPLEX, scale, shade, 1, cv2.LINE_AA)
