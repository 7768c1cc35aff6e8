"""The faults of a camera, one function each: light, occlusion, lens, sensor, codec."""

import cv2
import numpy as np


def adjust_gamma(image: np.ndarray, gamma: float) -> np.ndarray:
    """Raise the intensities of an image (H, W, 3) uint8, in [0, 1], to the power of gamma.

    By table, twelve times as fast as torchvision's power of every pixel.
    """
    table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return cv2.LUT(image, table)


def side_light(image: np.ndarray, strength: float, angle: float) -> np.ndarray:
    """Light an image (H, W, 3) uint8 from a direction: factor 1 + strength at one end of it, 1 - strength at the other.

    Args:
        image: RGB uint8.
        strength: In [0, 1].
        angle: Direction of the light, radians.
    """
    height, width = image.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(np.sin(angle))
    factor = 1 + np.float32(strength) * np.clip(x + y[:, None], -1, 1)
    return np.minimum(image * factor[..., None], 255).astype(np.uint8)


def occlude(image: np.ndarray, size: tuple[float, float], generator: np.random.Generator) -> np.ndarray:
    """Hide a random rotated rectangle or ellipse behind one colour, coloured noise or another part of the image.

    Args:
        image: (S, S, 3) RGB uint8; not modified.
        size: Range of the occluder's width and height, over S.
        generator: Source of every draw.
    """
    side = image.shape[0]
    shape = (
        tuple(float(value) for value in generator.uniform(0, side, 2)),
        tuple(float(value) for value in generator.uniform(*size, 2) * side),
        float(generator.uniform(0, 180)),
    )
    mask = np.zeros((side, side), np.uint8)
    if generator.random() < 0.5:
        cv2.ellipse(mask, shape, 255, -1)
    else:
        cv2.fillConvexPoly(mask, np.round(cv2.boxPoints(shape)).astype(np.int32), 255)
    filling = generator.integers(3)
    if filling == 0:
        occluder = np.full_like(image, generator.integers(0, 256, 3, np.uint8))
    elif filling == 1:
        grain = int(generator.integers(2, side // 2, endpoint=True))
        noise = generator.integers(0, 256, (grain, grain, 3), np.uint8)
        occluder = cv2.resize(noise, (side, side), interpolation=cv2.INTER_LINEAR)
    else:
        occluder = np.roll(image, generator.integers(side // 4, side - side // 4, 2), axis=(0, 1))
    return cv2.copyTo(occluder, mask, image.copy())


def low_resolution(image: np.ndarray, factor: float) -> np.ndarray:
    """Shrink an image (H, W, 3) uint8 by a factor in (0, 1] and enlarge it again."""
    height, width = image.shape[:2]
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))


def motion_blur(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Blur an image (H, W, 3) uint8 along a line of `length` pixels at `angle` radians, centred on each pixel."""
    radius = int(np.ceil(length / 2))
    along = np.linspace(-length / 2, length / 2, 4 * radius + 1)
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    rows = np.rint(radius + along * np.sin(angle)).astype(int)
    columns = np.rint(radius + along * np.cos(angle)).astype(int)
    np.add.at(kernel, (rows, columns), 1 / along.size)
    return cv2.filter2D(image, -1, kernel)


def sensor_noise(image: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of a standard deviation over the full intensity range to an image (H, W, 3) uint8."""
    noise = generator.standard_normal(image.shape, np.float32) * np.float32(255 * deviation)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def compress_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode an image (H, W, 3) RGB uint8 as JPEG of a quality in 1 to 100 and decode it again."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None, "what was just encoded decodes"
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
