"""Metrics of landmark detection on stills (NME, FR, AUC) and in video (NME, NMJ, NAD), pure functions on numpy arrays.

NME, FR and AUC are those of WFLW (Wu et al., CVPR 2018). NMJ is the measure that Micaelli et al. (CVPR 2023) call NMF.
"""

import numpy as np
from numpy.typing import ArrayLike

from utils.arrays import to_numbers
from utils.geometry import landmark_box
from utils.values import check_integer, check_number, plain

OUTER_EYE_CORNERS = (60, 72)
"""The outer eye corners in the 98-point WFLW scheme; their distance normalises the error."""


LARGEST_COORDINATE = 1e12
"""Landmarks beyond this are refused: squares of their differences would lose all digits."""

MOST_INTERVALS = 1_000_000
"""Most intervals of a cumulative error curve."""


def _to_landmarks(name: str, values: ArrayLike) -> np.ndarray:
    """The values as a float64 array of shape (N, K, 2), else ValueError."""
    points = to_numbers(name, values)
    if points.ndim != 3 or points.shape[-1] != 2 or points.shape[1] == 0:
        raise ValueError(f"{name} must have shape (N, K, 2), got {points.shape}")
    return points


def _check_landmarks(predicted: ArrayLike, true: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 arrays of one shape (N, K, 2) without NaN or infinity, else ValueError."""
    predicted, true = _to_landmarks("predicted landmarks", predicted), _to_landmarks("true landmarks", true)
    if predicted.shape != true.shape:
        raise ValueError(f"predicted landmarks {predicted.shape} and true landmarks {true.shape} differ in shape")
    for name, points in (("predicted", predicted), ("true", true)):
        finite = np.isfinite(points).all(axis=(1, 2))
        if not finite.all():
            raise ValueError(f"{name} landmarks are not finite at index {np.flatnonzero(~finite)[0]}")
        if points.size and np.abs(points).max() > LARGEST_COORDINATE:
            raise ValueError(f"{name} landmarks exceed {LARGEST_COORDINATE:g}; they are no coordinates of a picture")
    return predicted, true


def _check_nmes(nmes: ArrayLike, threshold: float) -> np.ndarray:
    """The errors as a float64 vector that is neither empty nor holds NaN, else ValueError."""
    nmes = to_numbers("errors", nmes)
    if nmes.ndim != 1 or nmes.size == 0:
        raise ValueError(f"errors must be a vector with at least one face, got shape {nmes.shape}")
    if np.isnan(nmes).any():
        raise ValueError(f"error {np.flatnonzero(np.isnan(nmes))[0]} is NaN")
    if nmes.min() < 0:
        raise ValueError(f"error {nmes.argmin()} is negative")
    check_number("threshold", plain(threshold), 0, open_below=True)
    return nmes


def nme(predicted: ArrayLike, true: ArrayLike) -> np.ndarray:
    """Normalised mean error: mean distance of the landmarks, divided by the distance of the true outer eye corners.

    Args:
        predicted: (N, K, 2) landmarks, K at least 73 (the 98-point WFLW scheme).
        true: (N, K, 2) true landmarks in the same unit.

    Returns:
        (N,) errors as fractions (0.04 is 4 %).

    Raises:
        ValueError: On other shapes, values that are not finite, or outer eye corners that coincide.
    """
    predicted, true = _check_landmarks(predicted, true)
    first, second = OUTER_EYE_CORNERS
    if true.shape[1] <= second:
        raise ValueError(
            f"NME needs landmarks {first} and {second}, the outer eye corners; got {true.shape[1]} landmarks"
        )
    eye_distance = np.linalg.norm(true[:, first] - true[:, second], axis=-1)
    if not eye_distance.all():
        raise ValueError(f"the true outer eye corners coincide at index {np.flatnonzero(eye_distance == 0)[0]}")
    return np.linalg.norm(predicted - true, axis=-1).mean(axis=-1) / eye_distance


def failure_rate(nmes: ArrayLike, threshold: float = 0.10) -> float:
    """Share of faces whose error exceeds the threshold.

    Args:
        nmes: (N,) errors as fractions.
        threshold: Error above which a face counts as a failure.

    Returns:
        Share in [0, 1].

    Raises:
        ValueError: On an empty vector, NaN, or a threshold that is not positive.
    """
    return float(np.mean(_check_nmes(nmes, threshold) > threshold))


def error_curve(nmes: ArrayLike, threshold: float = 0.10, step: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative error curve: share of faces with an error of at most x, for x = 0, step, .., threshold.

    Args:
        nmes: (N,) errors as fractions.
        threshold: End of the curve.
        step: Distance between its points; must divide the threshold.

    Returns:
        The errors x and the shares in [0, 1], both of length threshold / step + 1.

    Raises:
        ValueError: On an empty vector, NaN, a threshold that is not positive, or a step that does not divide it.
    """
    nmes = _check_nmes(nmes, threshold)
    check_number("step", plain(step), 0, open_below=True)
    intervals = round(threshold / step) if threshold / MOST_INTERVALS <= step else 0
    if intervals < 1 or not np.isclose(intervals * step, threshold):
        raise ValueError(
            f"step must divide the threshold {threshold} into at most {MOST_INTERVALS:,} intervals, got {step}"
        )
    errors = np.linspace(0, threshold, intervals + 1)
    shares = np.searchsorted(np.sort(nmes), errors, side="right") / nmes.size
    return errors, shares


def area_under_curve(nmes: ArrayLike, threshold: float = 0.10, step: float = 1e-4) -> float:
    """Area under the cumulative error curve by Simpson's rule, divided by the threshold.

    Args:
        nmes: (N,) errors as fractions.
        threshold: End of the curve.
        step: Distance of the points of the curve.

    Returns:
        Area in [0, 1]; 1 means no error.

    Raises:
        ValueError: As `error_curve`.
    """
    # SciPy is slow to load, and most importers of this module compute no area.
    from scipy.integrate import simpson

    errors, shares = error_curve(nmes, threshold, step)
    return float(simpson(shares, x=errors) / threshold)


def video_nme(predicted: ArrayLike, true: ArrayLike) -> float:
    """Normalised mean error of a video: the mean over its frames.

    Args:
        predicted: (T, K, 2) landmarks.
        true: (T, K, 2) true landmarks in the same unit.

    Returns:
        NME in percent.

    Raises:
        ValueError: As `nme`, or without a frame.
    """
    errors = nme(predicted, true)
    if errors.size == 0:
        raise ValueError("NME of a video needs at least one frame")
    return float(100 * errors.mean())


def frame_jitter(predicted: ArrayLike, true: ArrayLike) -> np.ndarray:
    """Jitter of every frame of a video except the first: the change of the error vectors since the previous frame.

    With delta_t = true_t - predicted_t, the jitter of a point is 100 * |delta_{t-1} - delta_t| / s_t, where s_t =
    sqrt(width * height) / 256 of the tight box around the true landmarks of frame t. The jitter of a frame is the root
    mean square over its points.

    Args:
        predicted: (T, K, 2) landmarks in frame pixels.
        true: (T, K, 2) true landmarks in frame pixels.

    Returns:
        (T - 1,) in hundredths of a pixel, for a face scaled to 256 x 256 pixels.

    Raises:
        ValueError: On fewer than two frames, other shapes, values that are not finite, or true landmarks whose box has
            no area.
    """
    predicted, true = _check_landmarks(predicted, true)
    if len(true) < 2:
        raise ValueError(f"jitter needs at least two frames, got {len(true)}")
    jitter = 100 * np.linalg.norm(np.diff(true - predicted, axis=0), axis=-1) / _face_sizes(true, first=1)[:, None]
    return np.sqrt(np.mean(jitter**2, axis=-1))


def _face_sizes(true: np.ndarray, first: int = 0) -> np.ndarray:
    """sqrt(width * height) / 256 of the tight boxes around true landmarks (T, K, 2), from frame number `first`."""
    boxes = landmark_box(true[first:])
    sizes = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)) / 256
    if not sizes.all():
        raise ValueError(f"the true landmarks of frame {first + np.flatnonzero(sizes == 0)[0]} enclose no area")
    return sizes


def video_nmj(predicted: ArrayLike, true: ArrayLike) -> float:
    """Normalised mean jitter: root mean square of the jitter over the points and frames of a video.

    Args:
        predicted: (T, K, 2) landmarks in frame pixels.
        true: (T, K, 2) true landmarks in frame pixels.

    Returns:
        NMJ in hundredths of a pixel, for a face scaled to 256 x 256 pixels; lower is better.

    Raises:
        ValueError: As `frame_jitter`.
    """
    return float(np.sqrt(np.mean(frame_jitter(predicted, true) ** 2)))


def normalised_allan_deviation(predicted: ArrayLike, true: ArrayLike, window: int) -> float:
    """Normalised Allan deviation NAD(m): how much the mean error of m frames differs from that of the next m frames.

    It tells jitter from drift: white jitter falls with m as 1 / sqrt(m), drift grows with m. With e_t = 100 *
    (true_t - predicted_t) / s_t, s_t as in `frame_jitter`, and a_l the mean of e_l, .., e_{l+m-1}, the variance of a
    point is sum over l of |a_{l+m} - a_l|^2 / (2 (T - 2m + 1)). The result is the square root of the mean variance over
    the points. NAD(1) is NMJ / sqrt(2) if the face keeps its size. Source: the Allan variance (1966), as QLOT (2026)
    applies it to landmarks.

    Args:
        predicted: (T, K, 2) landmarks in frame pixels.
        true: (T, K, 2) true landmarks in frame pixels.
        window: m in frames, at least 1.

    Returns:
        In hundredths of a pixel, for a face scaled to 256 x 256 pixels; NaN for a video of fewer than 2m frames.

    Raises:
        ValueError: On a window below 1, other shapes, values that are not finite, or true landmarks whose box has no
            area.
    """
    predicted, true = _check_landmarks(predicted, true)
    window = plain(window)
    check_integer("window", window, 1)
    if len(true) < 2 * window:
        return float("nan")
    errors = 100 * (true - predicted) / _face_sizes(true)[:, None, None]
    sums = np.concatenate([np.zeros_like(errors[:1]), np.cumsum(errors, axis=0)])
    means = (sums[window:] - sums[:-window]) / window
    changes = means[window:] - means[:-window]
    return float(np.sqrt(np.mean(np.sum(changes**2, axis=-1)) / 2))


def frame_shake(landmarks: ArrayLike) -> float:
    """Jitter of landmarks without ground truth.

    The root mean square over the landmarks of the second difference |p_t - 2 p_{t-1} + p_{t-2}|, in percent of
    sqrt(width * height) of their box. Motion at constant speed cancels, jitter does not.

    Args:
        landmarks: of three frames, (K, 2) each.

    Returns:
        NaN if a landmark is not finite.

    Raises:
        ValueError: On other shapes.
    """
    points = _to_landmarks("landmarks", landmarks)
    if len(points) != 3:
        raise ValueError(f"shake needs the landmarks of three frames, got {len(points)}")
    first, second, third = points
    box = landmark_box(third)
    size = np.sqrt(np.prod(box[2:] - box[:2]))
    change = np.linalg.norm(third - 2 * second + first, axis=1)
    return float(100 * np.sqrt(np.mean(change**2)) / size)
