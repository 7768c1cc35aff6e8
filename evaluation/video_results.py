"""The folder of a video evaluation, written so that a run that was killed can go on.

    settings.json                   what the numbers depend on, and a name for the run
    predictions/<method>/<id>.npz   of every clip that is done
    per_video.csv                   a row for every clip that is done
    results.json                    averages, once all clips are done

The predictions are the state of a run: a clip is done if those of every method are whole, of this run, and of the clip
as it now lies on disk. Its row is scored from them, so a resumed run has the numbers of one that was not stopped.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from datasets.wflw_v import Clip, published_results, read_landmarks
from evaluation.methods import Method
from evaluation.video_inference import ClipPredictions
from utils.errors import ClipError, OutputError
from utils.files import write_arrays, write_csv, write_json
from utils.metrics import video_nme, video_nmj

EVALUATED, TUNING = "evaluated", "tuning"

UNITS = {
    "nme": "percent of the distance of the outer eye corners, mean over the frames",
    "nmj": "1/100 pixel of a face of 256 x 256 pixels, root mean square over landmarks and frames",
    "median_nme": "as nme, median over the clips",
    "median_nmj": "as nmj, median over the clips",
    "evaluations": "of the cell, mean over the frames",
    "start_residual": "|f(z) - z| / |f(z)| where the solve of a frame starts, under RwR at the warm start; median over "
    "the frames; without the division if the solver's criterion is absolute",
    "answer_residual": "likewise, of the iterate of which the answer is the image; empty where nobody measured it",
    "count": "clips",
    "frames": "frames",
}
"""Of the numbers in results.json and per_video.csv."""


@dataclass(frozen=True)
class ClipRow:
    """A row of per_video.csv.

    Attributes:
        video_id: The clip.
        nme: In percent.
        nmj: In hundredths of a pixel of a face of 256 x 256 pixels.
        frames: Length of the clip.
        split: "easy" or "hard".
        use: "evaluated", or "tuning" where filters are tuned on it and it counts for nothing else.
        evaluations: Of the cell, mean over the frames.
        start_residual: Where the solve of a frame starts, under RwR at the warm start, before the evaluations that
            follow; median over the frames.
        answer_residual: Of the iterate of which the answer is the image, median over the frames; NaN where nobody
            measured it, as after the final evaluation of RwR.
        reference_nme: Published NME of this clip; NaN, as the next three, where there is none.
        reference_nmj: Published NMJ of this clip.
        nme_difference: Ours minus the published one.
        nmj_difference: Likewise.
    """

    video_id: str
    nme: float
    nmj: float
    frames: int
    split: str
    use: str
    evaluations: float
    start_residual: float
    answer_residual: float
    reference_nme: float
    reference_nmj: float
    nme_difference: float
    nmj_difference: float


def score_clip(clip: Clip, predicted: ClipPredictions, use: str) -> ClipRow:
    """Score the predictions for a clip.

    Raises:
        ClipError: If a frame has no landmarks, or the clip cannot be scored.
    """
    failed = np.flatnonzero(~np.isfinite(predicted.landmarks).all(axis=(1, 2)))
    if failed.size:
        raise ClipError(
            f"the solve of {failed.size} of its {clip.frames} frames is not finite, the first is frame {failed[0]}; "
            "try --precision fp32, else the weights are unfit"
        )
    true = read_landmarks(clip)
    try:
        nme, nmj = video_nme(predicted.landmarks, true), video_nmj(predicted.landmarks, true)
    except ValueError as error:
        raise ClipError(f"cannot be scored: {error}") from error
    reference_nme, reference_nmj = published_results().get(clip.video_id, (np.nan, np.nan))
    return ClipRow(
        video_id=clip.video_id,
        nme=nme,
        nmj=nmj,
        frames=clip.frames,
        split=clip.split,
        use=use,
        evaluations=float(predicted.evaluations.mean()),
        start_residual=float(np.median(predicted.start_residual)),
        answer_residual=float(np.median(predicted.answer_residual)),
        reference_nme=reference_nme,
        reference_nmj=reference_nmj,
        nme_difference=nme - reference_nme,
        nmj_difference=nmj - reference_nmj,
    )


def digest_of(clip: Clip) -> str:
    """A digest of what the results of a clip depend on: boxes, landmarks, and the size of the video.

    Raises:
        ClipError: If a file is gone.
    """
    digest = hashlib.sha256()
    try:
        for folder in ("bboxes", "landmarks"):
            digest.update((clip.root / folder / f"{clip.video_id}.npy").read_bytes())
        digest.update(str(clip.video_path.stat().st_size).encode())
    except OSError as error:
        raise ClipError(f"{error.filename}: cannot be read ({error.strerror}); check the file") from error
    return digest.hexdigest()


class VideoResults:
    """The predictions and rows of one evaluation on disk.

    Args:
        folder: Where they are.
        methods: The ways in which every clip is inferred.
        scored: The one of which the rows are.
        run: Name of the run that the predictions belong to.
    """

    def __init__(self, folder: Path, methods: Sequence[Method], scored: Method, run: str):
        self.folder = folder
        self.methods = tuple(methods)
        self.scored = scored
        self.run = run
        self.rows: dict[str, ClipRow] = {}

    def save(self, clip: Clip, predictions: Mapping[Method, ClipPredictions]) -> None:
        """Write the predictions for a clip that is done.

        Raises:
            OutputError: If they cannot be written.
        """
        digest = digest_of(clip)
        for method, of_method in predictions.items():
            write_arrays(self._path(clip.video_id, method), {"run": self.run, "data": digest, **vars(of_method)})

    def load(self, clip: Clip, method: Method) -> ClipPredictions:
        """Read what `save` wrote.

        Raises:
            OutputError: If the file is gone, damaged, of another run, or of the clip as it was before.
        """
        path = self._path(clip.video_id, method)
        try:
            with np.load(path, allow_pickle=False) as saved:
                run, digest = str(saved["run"]), str(saved["data"])
                predictions = ClipPredictions(**{item.name: saved[item.name] for item in fields(ClipPredictions)})
        except Exception as error:  # of a damaged archive NumPy and zipfile raise nearly anything
            raise OutputError(f"{path}: cannot be read ({error}); remove it and run again with --resume") from error
        if run != self.run or digest != digest_of(clip) or len(predictions.landmarks) != clip.frames:
            raise OutputError(f"{path}: belongs to another run or another form of the clip; run again with --resume")
        return predictions

    def is_done(self, clip: Clip) -> bool:
        """Whether the predictions of every method are there."""
        try:
            for method in self.methods:
                self.load(clip, method)
        except (OutputError, ClipError):
            return False
        return True

    def _path(self, video_id: str, method: Method) -> Path:
        return self.folder / "predictions" / method.name / f"{video_id}.npz"

    def write_rows(self, order: Iterable[str]) -> None:
        """Write per_video.csv.

        Args:
            order: The ids, as their rows are to stand; those without a row are left out.

        Raises:
            OutputError: If it cannot be written.
        """
        rows = [self.rows[video_id] for video_id in order if video_id in self.rows]
        columns = {item.name: [getattr(row, item.name) for row in rows] for item in fields(ClipRow)}
        write_csv(self.folder / "per_video.csv", columns)


def open_run(folder: Path, settings: Mapping[str, Any], resume: bool) -> str:
    """Begin a run in a folder, or take up the one that was stopped there.

    Args:
        folder: Where the results are.
        settings: What the numbers depend on, as plain values.
        resume: Whether to keep what an earlier run with the same settings has finished.

    Returns:
        The name of the run.

    Raises:
        OutputError: If the folder cannot be written to, or an earlier run that is to be resumed had other settings.
    """
    path = folder / "settings.json"
    run = uuid.uuid4().hex
    if resume and path.exists():
        earlier = _read_settings(path)
        # Through JSON, which has no tuples.
        for name, value in json.loads(json.dumps(settings)).items():
            if earlier.get(name) != value:
                raise OutputError(
                    f"{path}: the run to resume has {name} = {earlier.get(name)!r}, not {value!r}; repeat its options, "
                    "or leave out --resume to start anew"
                )
        run = str(earlier.get("run", run))
    # The averages of an earlier run do not fit to what comes now.
    (folder / "results.json").unlink(missing_ok=True)
    write_json(path, {**settings, "run": run})
    return run


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); leave out --resume to start anew") from error
    if not isinstance(settings, dict):
        raise OutputError(f"{path}: is not a list of settings; leave out --resume to start anew")
    return settings


def average(rows: Sequence[ClipRow]) -> dict[str, float | int | None]:
    """Plain means over clips, in an order that does not depend on when they ended.

    Args:
        rows: The clips.

    Returns:
        "nme", "median_nme", "nmj", "median_nmj", "evaluations" (None without a clip) and "count".
    """
    rows = sorted(rows, key=lambda row: row.video_id)
    if not rows:
        names = ("nme", "median_nme", "nmj", "median_nmj", "evaluations")
        return {**dict.fromkeys(names), "count": 0}
    nmes, nmjs = [row.nme for row in rows], [row.nmj for row in rows]
    return {
        "nme": float(np.mean(nmes)),
        "median_nme": float(np.median(nmes)),
        "nmj": float(np.mean(nmjs)),
        "median_nmj": float(np.median(nmjs)),
        # Over frames, not clips: what a run costs.
        "evaluations": float(np.average([row.evaluations for row in rows], weights=[row.frames for row in rows])),
        "count": len(rows),
    }


def plain_values(configuration: Any) -> dict[str, Any]:
    """A dataclass as JSON takes it, which has no infinity: "inf" and "-inf" stand for it, as float() reads them."""

    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, float) and np.isinf(value) else value

    return {name: plain(value) for name, value in asdict(configuration).items()}
