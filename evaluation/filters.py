"""Temporal filters for landmarks of a video, for comparison with RwR.

Time is in frames, so cutoff frequencies are in cycles per frame and speeds in units per frame. A causal filter uses
only past frames, as a live application must.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
from scipy.signal import lfilter, savgol_coeffs, savgol_filter

from utils.errors import OptionError
from utils.values import check_flag, check_integer, check_number


class Filter(Protocol):
    """A temporal filter."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    def __call__(self, landmarks: np.ndarray) -> np.ndarray:
        """Smooth landmarks (T, K, 2), T at least 1, over time; the result has the same shape."""
        ...

    @property
    def setting(self) -> str:
        """Its parameters as text."""
        ...


@dataclass(frozen=True)
class ExponentialMovingAverage:
    """y_t = alpha x_t + (1 - alpha) y_{t-1}, y_0 = x_0; causal.

    Attributes:
        alpha: Weight of the new value, in (0, 1]; 1 changes nothing.

    Raises:
        ValueError: If alpha is out of range.
    """

    alpha: float
    name = "exponential moving average"

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0, 1, open_below=True)

    def __call__(self, landmarks: np.ndarray) -> np.ndarray:
        """See `Filter`."""
        kept = 1 - self.alpha
        return lfilter([self.alpha], [1, -kept], landmarks, axis=0, zi=kept * landmarks[:1])[0]

    @property
    def setting(self) -> str:
        """See `Filter`."""
        return f"alpha {self.alpha:g}"


@dataclass(frozen=True)
class OneEuro:
    """The One-Euro filter (Casiez, Roussel, Vogel, CHI 2012, algorithm 1), on every coordinate; causal.

    An exponential moving average whose cutoff frequency grows with the smoothed speed: min_cutoff + beta |speed|.

    Attributes:
        min_cutoff: Cutoff at rest in cycles per frame; infinity changes nothing.
        beta: Increase of the cutoff, in cycles per frame, for a speed of one unit per frame.
        speed_cutoff: Cutoff of the filter on the speed in cycles per frame.

    Raises:
        ValueError: If a parameter is out of range.
    """

    min_cutoff: float
    beta: float
    # The paper's 1 Hz, at 30 frames a second.
    speed_cutoff: float = 1 / 30
    name = "One-Euro"

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "speed_cutoff"):
            check_number(name, getattr(self, name), 0, open_below=True, infinite=True)
        check_number("beta", self.beta, 0)

    def __call__(self, landmarks: np.ndarray) -> np.ndarray:
        """See `Filter`."""
        smooth = np.array(landmarks, dtype=np.float64)
        speed = np.zeros_like(smooth[0])
        for t in range(1, len(smooth)):
            speed += _smoothing(self.speed_cutoff) * (smooth[t] - smooth[t - 1] - speed)
            alpha = _smoothing(self.min_cutoff + self.beta * np.abs(speed))
            smooth[t] = smooth[t - 1] + alpha * (smooth[t] - smooth[t - 1])
        return smooth

    @property
    def setting(self) -> str:
        """See `Filter`."""
        return f"min_cutoff {self.min_cutoff:g}, beta {self.beta:g}"


def _smoothing(cutoff: float | np.ndarray) -> float | np.ndarray:
    """Weight of the new value in a low-pass filter with this cutoff, in cycles per frame."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff))


@dataclass(frozen=True)
class SavitzkyGolay:
    """A polynomial fitted to a window of frames by least squares (Savitzky, Golay, 1964).

    Attributes:
        window: Frames in the window; odd if centred. The window is shorter for short clips, and for the first frames of
            the causal form.
        order: Order of the polynomial, below the window; order window - 1 changes nothing.
        causal: Whether the value is taken at the end of the window, otherwise at its middle.

    Raises:
        ValueError: If a parameter is out of range.
    """

    window: int
    order: int
    causal: bool

    def __post_init__(self) -> None:
        check_integer("order", self.order, 0)
        check_integer("window", self.window, 1)
        check_flag("causal", self.causal)
        if self.order >= self.window or not (self.causal or self.window % 2):
            raise OptionError(f"the order must be below the window, and a centred window odd: {self}")

    @property
    def name(self) -> str:
        """See `Filter`."""
        return f"Savitzky-Golay, {'causal' if self.causal else 'centred'}"

    def __call__(self, landmarks: np.ndarray) -> np.ndarray:
        """See `Filter`."""
        landmarks = np.asarray(landmarks, dtype=np.float64)
        frames = len(landmarks)
        if not self.causal:
            window = min(self.window, frames - 1 + frames % 2)
            return savgol_filter(landmarks, window, min(self.order, window - 1), axis=0)
        smooth = lfilter(self._weights_at_end(self.window), [1], landmarks, axis=0)
        for t in range(min(self.window - 1, frames)):
            smooth[t] = np.tensordot(self._weights_at_end(t + 1), landmarks[t::-1], axes=1)
        return smooth

    def _weights_at_end(self, window: int) -> np.ndarray:
        """Weights of the last frames for the value at the end of the window, (window,), the newest first."""
        return savgol_coeffs(window, min(self.order, window - 1), pos=window - 1)

    @property
    def setting(self) -> str:
        """See `Filter`."""
        return f"window {self.window}, order {self.order}"


def filter_grids() -> dict[str, Sequence[Filter]]:
    """The settings of every filter to try, by its name; one of each changes nothing."""
    averages = [ExponentialMovingAverage(round(0.05 * step, 2)) for step in range(1, 21)]
    one_euros = [
        OneEuro(cutoff, beta)
        for cutoff, beta in product((0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5), (0, 1, 3, 10, 30, 100, 300))
    ]
    one_euros.append(OneEuro(math.inf, 0))
    grids: list[Sequence[Filter]] = [averages, one_euros]
    for causal in (True, False):
        windows = (3, 5, 7, 9, 11, 15)
        orders = (1, 2, 3)
        grids.append([SavitzkyGolay(w, o, causal) for w, o in product(windows, orders) if o < w])
    return {grid[0].name: grid for grid in grids}
