"""Comparison of methods for landmarks in video: error, jitter, lag, and filters at their best setting."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from evaluation.filters import Filter
from utils.geometry import landmark_box
from utils.metrics import normalised_allan_deviation, video_nme, video_nmj

MAX_SHIFT = 4
"""Frames by which predictions are shifted to find their lag."""

NME_TOLERANCE = 0.005
"""Share by which a filter may raise the NME on the tuning clips."""

TUNING_RULE = (
    f"lowest mean NMJ on the tuning clips among the settings whose mean NME there is at most {100 * NME_TOLERANCE:g} % "
    "above the NME without a filter"
)


@dataclass(frozen=True, eq=False)
class LabelledTrack:
    """The landmarks of a clip, predicted and true.

    Attributes:
        predicted: (T, K, 2) in frame pixels.
        true: (T, K, 2) in frame pixels.
        face_side: Side of the first frame's crop in frame pixels. It is the unit of the landmarks in the filters, so
            that a setting means the same at every resolution.
    """

    predicted: np.ndarray
    true: np.ndarray
    face_side: float

    def filtered(self, smooth: Filter) -> "LabelledTrack":
        """The same clip with filtered predictions."""
        predicted = self.face_side * smooth(self.predicted.astype(np.float64) / self.face_side)
        return LabelledTrack(predicted, self.true, self.face_side)


def shift_errors(predicted: ArrayLike, true: ArrayLike, max_shift: int = MAX_SHIFT) -> np.ndarray:
    """The error of predictions that are shifted in time.

    For a shift d, the mean over points and frames t of |p_{t+d} - g_t - b|^2, where b is the point's mean of
    p_{t+d} - g_t, so that a constant bias does not count. The unit is the squared size of the face, where the size is
    the mean over the frames of sqrt(width * height) of the tight box around the true landmarks. Every shift uses the
    same frames t, from max_shift to T - 1 - max_shift.

    Args:
        predicted: (T, K, 2) landmarks.
        true: (T, K, 2) true landmarks in the same unit.
        max_shift: Largest shift in frames.

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
    """The lag of predicted motion behind true motion: the shift of smallest error, interpolated by a parabola.

    Args:
        errors: (2 D + 1,) of `shift_errors`, or their mean over clips, in which clips with more motion count more.

    Returns:
        Lag in frames, positive if the prediction is late; NaN if the errors are unknown or smallest at an end.
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
    """A row of the comparison; the fields are the columns of comparison.csv.

    Attributes:
        method: Name of the method.
        crop: Name of the crop rule, see `utils.crops.CROP_RULES`.
        nme_percent: NME in percent, mean over clips.
        nmj: NMJ, mean over clips, in 1/100 pixel of a face of 256 x 256 pixels; the next four have the same unit.
        median_nmj: NMJ, median over clips.
        nad_1: NAD(1), mean over the clips that are long enough; NaN if none is.
        nad_4: NAD(4), likewise.
        nad_16: NAD(16), likewise.
        lag_frames: See `motion_lag`; NaN if it is unknown.
        evaluations: Evaluations of the cell per frame, mean over all frames.
        milliseconds: Milliseconds per frame.
    """

    method: str
    crop: str
    nme_percent: float
    nmj: float
    median_nmj: float
    nad_1: float
    nad_4: float
    nad_16: float
    lag_frames: float
    evaluations: float
    milliseconds: float


NAD_WINDOWS = (1, 4, 16)


def score_tracks(tracks: Iterable[LabelledTrack]) -> dict[str, float]:
    """The error, jitter and lag of a method over clips: fields of `MethodScore`. Clips are read one at a time.

    Raises:
        ValueError: If there is no clip, or one cannot be scored.
    """
    nmes, nmjs, nads, errors = [], [], [], []
    for track in tracks:
        nmes.append(video_nme(track.predicted, track.true))
        nmjs.append(video_nmj(track.predicted, track.true))
        nads.append([normalised_allan_deviation(track.predicted, track.true, window) for window in NAD_WINDOWS])
        errors.append(shift_errors(track.predicted, track.true))
    if not nmes:
        raise ValueError("there is no clip to score")
    known = [curve for curve in errors if np.isfinite(curve).all()]
    return {
        "nme_percent": float(np.mean(nmes)),
        "nmj": float(np.mean(nmjs)),
        "median_nmj": float(np.median(nmjs)),
        **{
            f"nad_{window}": _mean_of_known(of_window)
            for window, of_window in zip(NAD_WINDOWS, np.transpose(nads), strict=True)
        },
        "lag_frames": motion_lag(np.mean(known, axis=0)) if known else np.nan,
    }


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


@dataclass(frozen=True)
class FilterTuning:
    """The result of tuning a filter.

    Attributes:
        best: The setting chosen by `TUNING_RULE`, or the one with the lowest NME if every setting raises it too much.
        frontier: The settings that no other beats in both NME and NMJ, from the lowest NME to the lowest NMJ.
    """

    best: Filter
    frontier: tuple[Filter, ...]


def tune_filter(settings: Sequence[Filter], tuning: Iterable[LabelledTrack]) -> FilterTuning:
    """Score the settings of a filter on the tuning clips.

    Args:
        settings: The settings.
        tuning: The tuning clips with unfiltered predictions, read one at a time.
    """
    scores, unfiltered = [], []
    for track in tuning:
        unfiltered.append(video_nme(track.predicted, track.true))
        scores.append([_error_and_jitter(track.filtered(smooth)) for smooth in settings])
    nme, nmj = np.mean(scores, axis=0).T
    allowed = nme <= (1 + NME_TOLERANCE) * np.mean(unfiltered)
    best = np.argmin(np.where(allowed, nmj, np.inf)) if allowed.any() else np.argmin(nme)
    order = np.lexsort((nmj, nme))
    steadier = [index for place, index in enumerate(order) if nmj[index] < np.min(nmj[order[:place]], initial=np.inf)]
    return FilterTuning(settings[int(best)], tuple(settings[index] for index in steadier))


def filter_curve(settings: Sequence[Filter], tracks: Iterable[LabelledTrack]) -> np.ndarray:
    """Mean NME in percent and mean NMJ over clips of some settings of a filter: (settings, 2)."""
    return np.mean([[_error_and_jitter(track.filtered(smooth)) for smooth in settings] for track in tracks], axis=0)


def _error_and_jitter(track: LabelledTrack) -> tuple[float, float]:
    return video_nme(track.predicted, track.true), video_nmj(track.predicted, track.true)


HEADS = {
    "method": "method",
    "crop": "crop",
    "nme_percent": "NME %",
    "nmj": "NMJ",
    "median_nmj": "median NMJ",
    "nad_1": "NAD(1)",
    "nad_4": "NAD(4)",
    "nad_16": "NAD(16)",
    "lag_frames": "lag",
    "evaluations": "evals",
    "milliseconds": "ms",
}
"""Column heads of the printed table, by the fields of `MethodScore`."""

DIGITS = {"nme_percent": 3, "evaluations": 2, "lag_frames": 2, "milliseconds": 2}


def format_table(scores: Sequence[MethodScore]) -> str:
    """The comparison as text, one line per method."""
    table = pd.DataFrame([asdict(score) for score in scores])
    texts = ("method", "crop")
    for name in texts:
        table[name] = table[name].str.ljust(table[name].str.len().max())
    formats = {HEADS[name]: f"{{:.{DIGITS.get(name, 2)}f}}".format for name in HEADS if name not in texts}
    return table.rename(columns=HEADS).to_string(index=False, formatters=formats, na_rep="-")
