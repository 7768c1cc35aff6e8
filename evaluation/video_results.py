"""The folder of a video evaluation, written so that a killed run can be resumed.

    settings.json                   everything that the numbers depend on, and a name for the run
    predictions/<method>/<id>.npz   the predictions for every finished clip
    per_video.csv                   a row for every finished clip
    results.json                    averages, when all clips are finished

The predictions are the state of a run. A clip is finished if the predictions of every method are complete, belong to
this run, and to the clip's present files. Its row is computed from them, so a resumed run has the same numbers as one
that was not stopped.
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
from utils.errors import ClipError, InputError, OutputError
from utils.files import write_arrays, write_csv, write_json
from utils.metrics import video_nme, video_nmj
from utils.reading import check_file, read_text

EVALUATED, TUNING = "evaluated", "tuning"

UNITS = {
    "nme": "percent of the distance of the outer eye corners, mean over the frames",
    "nmj": "1/100 pixel of a face of 256 x 256 pixels, root mean square over landmarks and frames",
    "median_nme": "as nme, median over the clips",
    "median_nmj": "as nmj, median over the clips",
    "evaluations": "evaluations of the cell, mean over the frames",
    "start_residual": "|f(z) - z| / |f(z)| at the start of a frame's solve, under RwR at the warm start; median over "
    "the frames; without the division if the solver's criterion is absolute",
    "answer_residual": "likewise for the iterate z whose f(z) is the answer; empty if it was not measured",
    "count": "clips",
    "frames": "frames",
}
"""Units of the numbers in results.json and per_video.csv."""


@dataclass(frozen=True)
class ClipRow:
    """A row of per_video.csv.

    Attributes:
        video_id: The clip.
        nme: NME in percent.
        nmj: NMJ in hundredths of a pixel, for a face scaled to 256 x 256 pixels.
        frames: Length of the clip.
        split: "easy" or "hard".
        use: "evaluated", or "tuning" if it was only used for tuning the filters.
        evaluations: Evaluations of the cell per frame, mean over the frames.
        start_residual: Residual at the start of a frame's solve, under RwR at the warm start, before the evaluations
            that follow; median over the frames.
        answer_residual: Residual of the iterate z whose f(z) is the answer, median over the frames; NaN if it was not
            measured, for example after the final evaluation of RwR.
        reference_nme: Published NME of this clip. This and the next three are NaN if there is none.
        reference_nmj: Published NMJ of this clip.
        nme_difference: Our NME minus the published one.
        nmj_difference: Our NMJ minus the published one.
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
            "try --precision fp32, or other weights"
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


def _form(values: np.ndarray) -> tuple[tuple[int, ...], np.dtype[Any]]:
    return values.shape, values.dtype


def digest_of(clip: Clip) -> str:
    """A digest of the files behind a clip's results: boxes, landmarks and video.

    Raises:
        ClipError: If a file has been removed.
    """
    digest = hashlib.sha256()
    try:
        arrays = (clip.root / folder / f"{clip.video_id}.npy" for folder in ("bboxes", "landmarks"))
        for path in (*arrays, clip.video_path):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise ClipError(f"{error.filename}: cannot be read ({error.strerror}); check the file") from error
    return digest.hexdigest()


class VideoResults:
    """The predictions and rows of one evaluation on disk.

    Args:
        folder: Their folder.
        methods: The methods by which every clip is inferred.
        scored: The method of the rows.
        run: Name of the run that the predictions belong to.
    """

    def __init__(self, folder: Path, methods: Sequence[Method], scored: Method, run: str):
        self.folder = folder
        self.methods = tuple(methods)
        self.scored = scored
        self.run = run
        self.rows: dict[str, ClipRow] = {}

    def save(self, clip: Clip, predictions: Mapping[Method, ClipPredictions]) -> None:
        """Write the predictions for a finished clip.

        Raises:
            OutputError: If they cannot be written.
        """
        digest = digest_of(clip)
        for method, of_method in predictions.items():
            write_arrays(self._path(clip.video_id, method), {"run": self.run, "data": digest, **vars(of_method)})

    def load(self, clip: Clip, method: Method) -> ClipPredictions:
        """Read the predictions that `save` wrote.

        Raises:
            OutputError: If the file is missing or damaged, or belongs to another run or to earlier files of the clip.
        """
        path = self._path(clip.video_id, method)
        try:
            check_file(path)
            with np.load(path, allow_pickle=False) as saved:
                run, digest = str(saved["run"]), str(saved["data"])
                predictions = ClipPredictions(**{item.name: saved[item.name] for item in fields(ClipPredictions)})
        except Exception as error:  # NumPy and zipfile raise many kinds of error on a damaged archive
            raise OutputError(f"{path}: cannot be read ({error}); remove it and run again with --resume") from error
        if run != self.run or digest != digest_of(clip):
            raise OutputError(f"{path}: belongs to another run, or the clip has changed; run again with --resume")
        wanted = vars(ClipPredictions.empty(clip.frames))
        if any(_form(values) != _form(wanted[name]) for name, values in vars(predictions).items()):
            raise OutputError(f"{path}: is damaged; remove it and run again with --resume")
        return predictions

    def is_done(self, clip: Clip) -> bool:
        """Whether there are predictions of every method."""
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
            order: The ids in the order of the rows; ids without a row are left out.

        Raises:
            OutputError: If the file cannot be written.
        """
        rows = [self.rows[video_id] for video_id in order if video_id in self.rows]
        columns = {item.name: [getattr(row, item.name) for row in rows] for item in fields(ClipRow)}
        write_csv(self.folder / "per_video.csv", columns)


def open_run(folder: Path, settings: Mapping[str, Any], resume: bool) -> str:
    """Start a run in a folder, or resume the one that was stopped there.

    Args:
        folder: Folder of the results.
        settings: Everything that the numbers depend on, as plain values.
        resume: Whether to keep the finished clips of an earlier run with the same settings.

    Returns:
        The name of the run.

    Raises:
        OutputError: If the folder cannot be written to, or the run to resume had other settings.
    """
    path = folder / "settings.json"
    run = uuid.uuid4().hex
    if resume and path.exists():
        earlier = _read_settings(path)
        # Compared as JSON, which has no tuples.
        for name, value in json.loads(json.dumps(settings)).items():
            if earlier.get(name) != value:
                raise OutputError(
                    f"{path}: the run to resume has {name} = {earlier.get(name)!r}, not {value!r}; repeat its options, "
                    "or leave out --resume to start over"
                )
        run = str(earlier.get("run", run))
    # The averages of an earlier run do not fit the new results.
    (folder / "results.json").unlink(missing_ok=True)
    write_json(path, {**settings, "run": run})
    return run


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(read_text(path))
    except (InputError, ValueError, RecursionError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); leave out --resume to start over") from error
    if not isinstance(settings, dict):
        raise OutputError(f"{path}: is not a list of settings; leave out --resume to start over")
    return settings


def average(rows: Sequence[ClipRow]) -> dict[str, float | int | None]:
    """Plain means over clips, summed in an order that does not depend on when they ended.

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
        # The mean over frames, not clips: the cost of a run.
        "evaluations": float(np.average([row.evaluations for row in rows], weights=[row.frames for row in rows])),
        "count": len(rows),
    }


def plain_values(configuration: Any) -> dict[str, Any]:
    """A dataclass as plain values for JSON. JSON has no infinity, so "inf" and "-inf" replace it."""

    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, float) and np.isinf(value) else value

    return {name: plain(value) for name, value in asdict(configuration).items()}
