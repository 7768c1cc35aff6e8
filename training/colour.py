"""Strong changes of colour, as on faces that are painted, filtered or lit in one colour."""

import cv2
import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def shift_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Turn the hue of an image (H, W, 3) RGB uint8 by a share of the colour circle; 1 is a whole turn."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(256 * turn) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def channel_curves(image: np.ndarray, gain: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """gain * intensity^gamma of each channel, clipped, by table.

    Args:
        image: (H, W, 3) uint8.
        gain: (3,) factors.
        gamma: (3,) exponents of intensities in [0, 1].
    """
    intensity = np.arange(256)[:, None] / 255
    table = np.clip(np.rint(255 * gain * intensity**gamma), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def duotone(image: np.ndarray, dark: np.ndarray, light: np.ndarray, contrast: float) -> np.ndarray:
    """Map the luminance of an image to the colours between two colours.

    Args:
        image: (H, W, 3) RGB uint8.
        dark: (3,) colour of black, 0 to 255.
        light: (3,) colour of white, 0 to 255.
        contrast: Factor of the luminance about its middle, before the colours.
    """
    luminance = np.rint(image @ _LUMA).astype(np.uint8)
    level = np.clip(0.5 + contrast * (np.arange(256) / 255 - 0.5), 0, 1)[:, None]
    table = np.rint(dark + level * (np.asarray(light, float) - dark)).astype(np.uint8)
    return table[luminance]


def posterise(image: np.ndarray, levels: int) -> np.ndarray:
    """Round the intensities of an image (H, W, 3) uint8 to `levels` equally spaced ones, black and white among them."""
    steps = np.rint(np.arange(256) / 255 * (levels - 1))
    return cv2.LUT(image, np.rint(255 * steps / (levels - 1)).astype(np.uint8))
