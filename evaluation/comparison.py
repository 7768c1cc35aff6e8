"""Comparing ways to follow landmarks through video: error, jitter, lag, and filters at their best setting."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evaluation.filters import Filter
from utils.geometry import landmark_box
from utils.metrics import video_nme, video_nmj

MAX_SHIFT = 4
"""Frames by which predictions are shifted to find their lag."""

NME_TOLERANCE = 0.005
"""Share by which a filter may raise the NME on the tuning clips."""

TUNING_RULE = (
    f"lowest mean NMJ on the tuning clips among the settings whose mean NME there is at most {100 * NME_TOLERANCE:g} % "
    "above that without filter"
)


@dataclass(frozen=True, eq=False)
class LabelledTrack:
    """The landmarks of a clip, predicted and true.

    Attributes:
        predicted: (T, K, 2) in frame pixels.
        true: (T, K, 2) in frame pixels.
        face_side: Side of the first frame's crop in frame pixels, the unit in which filters see the landmarks, so that
            a setting means the same at every resolution.
    """

    predicted: np.ndarray
    true: np.ndarray
    face_side: float

    def filtered(self, smooth: Filter) -> "LabelledTrack":
        """The same clip with filtered predictions."""
        predicted = self.face_side * smooth(self.predicted.astype(np.float64) / self.face_side)
        return LabelledTrack(predicted, self.true, self.face_side)


def shift_errors(predicted: ArrayLike, true: ArrayLike, max_shift: int = MAX_SHIFT) -> np.ndarray:
    """How far predictions are from the truth that was some frames ago, or is still to come.

    For a shift d, the mean over points and frames t of |p_{t+d} - g_t - b|^2, where b is the mean of p_{t+d} - g_t of
    the point, so that a constant bias does not count; in units of the squared size of the face, sqrt(width * height) of
    the tight box around the true landmarks, mean over the frames. Every shift is measured on the same frames t, those
    from max_shift to T - 1 - max_shift.

    Args:
        predicted: (T, K, 2) landmarks.
        true: (T, K, 2) true landmarks in the same unit.
        max_shift: Greatest shift in frames.

    Returns:
        (2 max_shift + 1,) errors for the shifts -max_shift, .., max_shift; NaN for a clip without two such frames.
    """
    predicted, true = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    frames = len(true)
    if frames < 2 * max_shift + 2:
        return np.full(2 * max_shift + 1, np.nan)
    boxes = landmark_box(true)
    face_size = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)).mean()
    middle = true[max_shift : frames - max_shift]
    errors = np.empty(2 * max_shift + 1)
    for index in range(errors.size):
        offsets = predicted[index : index + len(middle)] - middle
        errors[index] = np.mean(np.sum((offsets - offsets.mean(axis=0)) ** 2, axis=-1))
    return errors / face_size**2


def motion_lag(errors: ArrayLike) -> float:
    """By how many frames predicted motion follows the true one: the shift of least error, between frames by a parabola.

    Args:
        errors: (2 D + 1,) of `shift_errors`, or the mean of several clips', in which a clip counts by how much moves.

    Returns:
        Lag in frames, positive where the prediction is late; NaN where the errors are not known or least at an end.
    """
    errors = np.asarray(errors, dtype=np.float64)
    if not np.isfinite(errors).all():
        return np.nan
    least = int(np.argmin(errors))
    if least in (0, errors.size - 1):
        return np.nan
    before, here, after = errors[least - 1 : least + 2]
    curvature = before - 2 * here + after
    between = 0.5 * (before - after) / curvature if curvature > 0 else 0.0
    return float(least - errors.size // 2 + between)


@dataclass(frozen=True)
class MethodScore:
    """A line of the comparison.

    Attributes:
        method: What was done.
        nme: Mean over clips, percent.
        nmj: Mean over clips.
        median_nmj: Median over clips.
        lag: In frames, see `motion_lag`; NaN where it cannot be told.
        evaluations: Of the cell, mean over all frames.
        milliseconds: A frame.
    """

    method: str
    nme: float
    nmj: float
    median_nmj: float
    lag: float
    evaluations: float
    milliseconds: float


def score_tracks(tracks: Iterable[LabelledTrack]) -> dict[str, float]:
    """The "nme", "nmj", "median_nmj" and "lag" of a method over clips, which are taken one at a time.

    Raises:
        ValueError: If there is no clip, or one cannot be scored.
    """
    scores = [
        (
            video_nme(track.predicted, track.true),
            video_nmj(track.predicted, track.true),
            shift_errors(track.predicted, track.true),
        )
        for track in tracks
    ]
    if not scores:
        raise ValueError("there is no clip to score")
    nmes, nmjs, errors = zip(*scores, strict=True)
    known = [curve for curve in errors if np.isfinite(curve).all()]
    return {
        "nme": float(np.mean(nmes)),
        "nmj": float(np.mean(nmjs)),
        "median_nmj": float(np.median(nmjs)),
        "lag": motion_lag(np.mean(known, axis=0)) if known else np.nan,
    }


def tune_filter(settings: Sequence[Filter], tuning: Callable[[], Iterable[LabelledTrack]]) -> Filter:
    """The best setting of a filter by `TUNING_RULE`; the one of lowest NME if every setting raises it too much.

    Args:
        settings: The settings to try.
        tuning: Gives the tuning clips with unfiltered predictions, one at a time.
    """
    nmes, nmjs, unfiltered = [], [], []
    for track in tuning():
        filtered = [track.filtered(smooth).predicted for smooth in settings]
        unfiltered.append(video_nme(track.predicted, track.true))
        nmes.append([video_nme(predicted, track.true) for predicted in filtered])
        nmjs.append([video_nmj(predicted, track.true) for predicted in filtered])
    nme, nmj = np.mean(nmes, axis=0), np.mean(nmjs, axis=0)
    allowed = nme <= (1 + NME_TOLERANCE) * np.mean(unfiltered)
    if not allowed.any():
        return settings[int(np.argmin(nme))]
    return settings[int(np.argmin(np.where(allowed, nmj, np.inf)))]


def format_table(scores: Sequence[MethodScore]) -> str:
    """The comparison as text, a line a method."""
    width = max(len(score.method) for score in scores)
    head = f"{'method':<{width}}  {'NME %':>6}  {'NMJ':>7}  {'median NMJ':>10}  {'lag':>5}  {'evals':>5}  {'ms':>6}"
    lines = [
        f"{score.method:<{width}}  {score.nme:6.3f}  {score.nmj:7.2f}  {score.median_nmj:10.2f}  "
        f"{'-' if np.isnan(score.lag) else format(score.lag, '.2f'):>5}  {score.evaluations:5.2f}  "
        f"{score.milliseconds:6.2f}"
        for score in scores
    ]
    return "\n".join([head, *lines])
