"""RwR, no RwR, and no RwR with temporal filters, each on the same frames and the same crops."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from datasets.wflw_v import Clip, read_boxes, read_landmarks
from evaluation.comparison import (
    TUNING_RULE,
    LabelledTrack,
    MethodScore,
    filter_curve,
    format_table,
    score_tracks,
    tune_filter,
)
from evaluation.convergence import milliseconds_per_frame
from evaluation.filters import filter_grids
from evaluation.methods import Method
from evaluation.settings import ClipSettings
from evaluation.video_figures import comparison_figure
from evaluation.video_inference import load_crops
from evaluation.video_results import VideoResults
from inference.engines import Engine
from models import LDEQ
from utils.files import save_figure, write_csv
from utils.geometry import box_to_crop
from utils.progress import progress_bar

TIMED_FRAMES = 30


@dataclass(frozen=True, eq=False)
class Comparison:
    """The scores of every method, on clips that were not used for tuning the filters.

    Attributes:
        scores: The methods without a filter, then the filters at their best settings, crop by crop.
        curves: By crop and name of a filter the (settings, 2) NME in percent and NMJ of its settings.
        evaluated: Ids of the clips.
        tuning: Ids of the clips for tuning the filters.
    """

    scores: tuple[MethodScore, ...]
    curves: dict[tuple[str, str], np.ndarray]
    evaluated: tuple[str, ...]
    tuning: tuple[str, ...]

    @property
    def caption(self) -> str:
        """The conditions of the table and the figure."""
        return (
            f"{len(self.evaluated)} clips. Filters at their best setting: {TUNING_RULE}. Tuning clips, not evaluated: "
            f"{', '.join(self.tuning)}. NMJ and NAD in 1/100 pixel of a face of 256 x 256 pixels. Lag in frames, "
            "positive if late. Milliseconds per frame: the network on one clip, all methods in turn, plus the filter, "
            "without decoding."
        )

    def text(self) -> str:
        """The table and its caption."""
        return f"{format_table(self.scores)}\n{self.caption}"

    def plain(self) -> dict[str, Any]:
        """Plain values for results.json."""
        methods = [
            {name: None if value != value else value for name, value in asdict(score).items()} for score in self.scores
        ]
        return {"methods": methods, "tuning_clips": list(self.tuning), "tuning_rule": TUNING_RULE}

    def write(self, results: VideoResults, title: str) -> None:
        """Write comparison.csv and comparison.png.

        Args:
            results: The folder.
            title: Title of the figure: weights and data.

        Raises:
            OutputError: If a file cannot be written.
        """
        columns = {name: [getattr(score, name) for score in self.scores] for name in asdict(self.scores[0])}
        write_csv(results.folder / "comparison.csv", columns)
        save_figure(comparison_figure(self.scores, self.curves, title), results.folder / "comparison.png")


def load_tracks(clips: Iterable[Clip], method: Method, results: VideoResults) -> Iterator[LabelledTrack]:
    """The saved predictions for clips together with the ground truth, one clip at a time."""
    for clip in clips:
        face_side = 1 / box_to_crop(read_boxes(clip)[0], size=1)[0, 0]
        yield LabelledTrack(results.load(clip, method).landmarks, read_landmarks(clip), face_side)


def compare(
    evaluated: Sequence[Clip],
    tuning: Sequence[Clip],
    model: LDEQ,
    engine: Engine,
    results: VideoResults,
    settings: ClipSettings,
) -> Comparison:
    """Score every method of a run, and the methods without RwR also with every filter at its best setting.

    Args:
        evaluated: The clips to score.
        tuning: The clips for tuning the filters.
        model: The network, for the times.
        engine: Its engine.
        results: Has the predictions for all clips.
        settings: See `ClipSettings`.
    """
    solvers = {method: method.streams(model, engine, 1, settings).step for method in results.methods}
    by_rule = load_crops(evaluated[0], TIMED_FRAMES, model, tuple({method.rule: None for method in results.methods}))
    milliseconds = milliseconds_per_frame(solvers, {method: by_rule[method.rule] for method in results.methods})
    grids = filter_grids()
    scores: list[MethodScore] = []
    curves: dict[tuple[str, str], np.ndarray] = {}
    fresh = [method for method in results.methods if method.variant is None]
    with progress_bar(len(fresh) * len(grids), "filter", "comparison") as progress:
        for method in results.methods:
            solved = [results.load(clip, method).evaluations for clip in evaluated]
            evaluations = float(np.concatenate(solved).mean())
            measured = score_tracks(load_tracks(evaluated, method, results))
            score = MethodScore(
                method.title, method.crop, **measured, evaluations=evaluations, milliseconds=milliseconds[method]
            )
            scores.append(score)
        for method in fresh:
            unfiltered = next(score for score in scores if (score.method, score.crop) == (method.title, method.crop))
            first = next(load_tracks(evaluated, method, results))
            for name, grid in grids.items():
                tuned = tune_filter(grid, load_tracks(tuning, method, results))
                started = time.perf_counter()
                tuned.best(first.predicted)
                filtering = 1000 * (time.perf_counter() - started) / len(first.predicted)
                measured = score_tracks(track.filtered(tuned.best) for track in load_tracks(evaluated, method, results))
                score = MethodScore(
                    f"{method.title}, {name} ({tuned.best.setting})",
                    method.crop,
                    **measured,
                    evaluations=unfiltered.evaluations,
                    milliseconds=unfiltered.milliseconds + filtering,
                )
                scores.append(score)
                curves[method.crop, name] = filter_curve(tuned.frontier, load_tracks(evaluated, method, results))
                progress.update()
    crops = list(dict.fromkeys(method.crop for method in results.methods))
    scores.sort(key=lambda score: crops.index(score.crop))
    return Comparison(
        tuple(scores),
        curves,
        tuple(clip.video_id for clip in evaluated),
        tuple(clip.video_id for clip in tuning),
    )
