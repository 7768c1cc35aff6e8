"""Realistic occluders of a face: glasses, goggles, masks, hands and headgear, placed by its 98 landmarks."""

import cv2
import numpy as np

EYES = (slice(60, 68), slice(68, 76))
BROWS = slice(33, 51)
MASK_OUTLINE = (*range(3, 30), 52)  # the contour below the eyes, and the bridge of the nose
_BITS = 4  # fractional bits of OpenCV's drawing coordinates


def paint(image: np.ndarray, mask: np.ndarray, colour: np.ndarray, opacity: float) -> np.ndarray:
    """Blend a colour (3,) or picture (H, W, 3) over an image (H, W, 3) uint8 where mask (H, W) uint8 is 255."""
    alpha = mask[..., None] * np.float32(opacity / 255)
    return np.rint(image + alpha * (np.asarray(colour, np.float32) - image)).astype(np.uint8)


def glasses(image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Two lenses, clear to black, with frame, bridge and a glint.

    Args:
        image: (S, S, 3) RGB uint8; not modified.
        landmarks: (98, 2) in pixels.
        generator: Source of every draw.
    """
    lens, frame = np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], np.uint8)
    width_factor, height_factor, thickness = generator.uniform((0.7, 0.5, 0.02), (1.0, 0.9, 0.1))
    span = np.linalg.norm(landmarks[72] - landmarks[60])
    line = max(1, round(thickness * span))
    tilt = np.degrees(np.arctan2(*(landmarks[72] - landmarks[60])[::-1]))
    centres = []
    for eye in EYES:
        points = landmarks[eye]
        size = max(np.ptp(points, axis=0).max(), 0.12 * span) * 2 * np.array([width_factor, height_factor])
        centre = points.mean(axis=0)
        for canvas, width in ((lens, -1), (frame, line)):
            cv2.ellipse(canvas, (tuple(centre), tuple(size), tilt), 255, width, cv2.LINE_AA)
        centres.append((centre, size[0] / 2))
    (left, left_radius), (right, right_radius) = centres
    along = (right - left) / max(np.linalg.norm(right - left), 1e-6)
    _line(frame, left + left_radius * along, right - right_radius * along, line)
    tint = generator.uniform(0, 90, 3) if generator.random() < 0.7 else generator.uniform(0, 255, 3)
    image = paint(image, lens, tint, generator.choice([generator.uniform(0, 0.3), generator.uniform(0.6, 1)]))
    if generator.random() < 0.3:
        glint = np.zeros_like(lens)
        start = left + generator.uniform(-0.5, 0.5, 2) * left_radius
        _line(glint, start, start + generator.uniform(-1, 1, 2) * left_radius, 2 * line)
        image = paint(image, cv2.bitwise_and(glint, lens), np.full(3, 255), generator.uniform(0.3, 1))
    return paint(image, frame, generator.integers(0, 256, 3), generator.uniform(0.7, 1))


def goggles(image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One visor over eyes and brows, shaded from one colour to another, with a border; arguments as of `glasses`.

    Some have a strap to the ears, and some the colours of the skin, so that they look like a part of the face.
    """
    outline = np.concatenate([landmarks[60:76], landmarks[BROWS]])
    centre = outline.mean(axis=0)
    up, across = _upright(landmarks)
    wider, higher = generator.uniform((1.0, 1.0), (1.25, 2.2))
    offsets = outline - centre
    outline = centre + wider * np.outer(offsets @ across, across) + higher * np.outer(offsets @ up, up)
    visor, border = np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], np.uint8)
    hull = cv2.convexHull(_fixed(outline))
    cv2.fillConvexPoly(visor, hull, 255, cv2.LINE_AA, _BITS)
    line = max(1, round(generator.uniform(0.02, 0.12) * np.linalg.norm(landmarks[72] - landmarks[60])))
    cv2.polylines(border, [hull], True, 255, line, cv2.LINE_AA, _BITS)
    if generator.random() < 0.5:
        for ear in (0, 32):
            _line(border, centre, landmarks[ear] + (landmarks[ear] - centre) / 2, 2 * line)
        border[cv2.erode(visor, np.ones((line, line), np.uint8)) > 0] = 0
    skin = generator.random() < 0.4
    first, second, rim = (
        skin_colour(image, landmarks, generator) if skin else generator.uniform(0, 255, 3) for _ in range(3)
    )
    slope = np.linspace(0, 1, image.shape[0])[:, None, None]
    shade = np.broadcast_to(first + slope * (second - first), image.shape)
    shade = shade if generator.random() < 0.5 else np.swapaxes(shade, 0, 1)
    image = paint(image, visor, shade, generator.uniform(0.5, 1))
    return paint(image, border, rim, 1)


def face_mask(image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A mask from the nose to the chin, of one colour with folds; arguments as of `glasses`."""
    outline = landmarks[list(MASK_OUTLINE)]
    centre = outline.mean(axis=0)
    outline = centre + (outline - centre) * generator.uniform(0.9, 1.08)
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [_fixed(outline)], 255, cv2.LINE_AA, _BITS)
    plain = (
        generator.uniform((90, 130, 150), (230, 245, 255)) if generator.random() < 0.6 else generator.uniform(0, 255, 3)
    )
    folds = np.sin(np.linspace(0, generator.uniform(4, 40), image.shape[0]) + generator.uniform(0, 6))
    cloth = np.clip(plain + generator.uniform(0, 25) * folds[:, None, None], 0, 255)
    return paint(image, mask, np.broadcast_to(cloth, image.shape), generator.uniform(0.9, 1))


def hand(image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A palm with four fingers over the face, in a colour near its skin; arguments as of `glasses`."""
    side = image.shape[0]
    size = np.sqrt(np.prod(np.ptp(landmarks, axis=0)))
    palm = landmarks[generator.integers(98)] + generator.uniform(-0.15, 0.15, 2) * size
    angle = generator.uniform(0, 2 * np.pi)
    width, length = generator.uniform((0.07, 0.25), (0.13, 0.55)) * size
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    skin = skin_colour(image, landmarks, generator)
    image = image.copy()
    palm_mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(palm_mask, (tuple(palm), (4.5 * width, 4 * width), np.degrees(angle)), 255, -1, cv2.LINE_AA)
    image = paint(image, palm_mask, skin, 1)
    for finger in range(int(generator.integers(2, 5))):
        finger_mask = np.zeros((side, side), np.uint8)
        root = palm + (finger - 1.5) * width * across + 1.5 * width * along
        bend = generator.uniform(-0.15, 0.15) * length * across
        _line(finger_mask, root, root + length * along + bend, max(1, round(width)))
        image = paint(image, finger_mask, np.clip(skin * generator.uniform(0.85, 1.1), 0, 255), 1)
    return image


def headgear(image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A hat or helmet from above the brows upwards, half of them with goggles below; arguments as of `glasses`."""
    if generator.random() < 0.5:
        image = goggles(image, landmarks, generator)
    up, across = _upright(landmarks)
    brows = landmarks[BROWS].mean(axis=0)
    height, width = np.linalg.norm(brows - landmarks[16]), np.ptp(landmarks @ across)
    middle = brows + generator.uniform(0.05, 0.35) * height * up + generator.uniform(-0.15, 0.15) * width * across
    tilt = generator.uniform(-0.3, 0.3)
    edge = across * np.cos(tilt) + up * np.sin(tilt)
    side = generator.uniform(0.6, 1.2) * width * edge
    arch = generator.uniform(-0.1, 0.15) * height * up
    outline = np.stack([middle - side, middle + arch, middle + side, middle + side + 2 * height * up])
    outline = np.concatenate([outline, [middle - side + 2 * height * up]])
    shell = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(shell, [_fixed(outline)], 255, cv2.LINE_AA, _BITS)
    first = skin_colour(image, landmarks, generator) if generator.random() < 0.3 else generator.uniform(0, 255, 3)
    second = np.clip(first + generator.normal(0, 40, 3), 0, 255)
    shade = np.linspace(0, 1, image.shape[1])[None, :, None]
    return paint(image, shell, np.broadcast_to(first + shade * (second - first), image.shape), 1)


def skin_colour(image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A colour (3,) of 0 to 255 near that of the face's middle, lighter or darker; arguments as of `glasses`."""
    cheek = np.clip(landmarks[[54, 8, 24]].mean(axis=0), 0, image.shape[0] - 1).astype(int)
    return np.clip(image[cheek[1], cheek[0]] * generator.uniform(0.6, 1.3) + generator.uniform(-20, 20, 3), 0, 255)


OCCLUDERS = (glasses, goggles, face_mask, hand, headgear)


def _upright(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (2,) from the chin to the brows, and across."""
    up = landmarks[BROWS].mean(axis=0) - landmarks[16]
    up = up / max(np.linalg.norm(up), 1e-6)
    return up, np.array([-up[1], up[0]])


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points (N, 2) in pixels as OpenCV's fixed-point coordinates; points far outside are moved to a safe distance."""
    return np.rint(np.clip(points, -1e4, 1e4) * 2**_BITS).astype(np.int32)


def _line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, width: int) -> None:
    first, second = _fixed(np.stack([start, end])).tolist()
    cv2.line(canvas, first, second, 255, width, cv2.LINE_AA, _BITS)
