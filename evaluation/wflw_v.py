"""The video evaluation: the choice of clips, inference and scores, averages."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from datasets.clip_stream import plan_slots
from datasets.wflw_v import Clip, list_clips, open_clip
from evaluation.conditions import Conditions, describe_clips
from evaluation.methods import Method, methods_of, scored_method
from evaluation.settings import ClipSettings
from evaluation.video_inference import InferredClip, infer_clips
from evaluation.video_results import (
    EVALUATED,
    TUNING,
    UNITS,
    ClipRow,
    VideoResults,
    average,
    open_run,
    plain_values,
    score_clip,
)
from inference.engines import Engine, open_engine
from inference.network import load_network, use_threads
from models import LDEQ
from utils.errors import CheckpointError, ClipError, InputError, OptionError
from utils.files import protect_inputs, write_json
from utils.landmark_groups import NUM_LANDMARKS
from utils.pipeline import WriteBehind
from utils.processes import Process, broadcast, gather
from utils.progress import progress_bar
from utils.reading import read_text
from utils.sources import initialise_decoder

MAX_TUNING_CLIPS = 20

CLIPS_BEHIND = 8
"""Most clips that wait to be saved and scored while others are inferred."""


@dataclass(frozen=True, eq=False)
class ClipEvaluation:
    """A finished video evaluation.

    Attributes:
        settings: See `ClipSettings`.
        model: The network.
        engine: Its engine.
        clips: The clips to evaluate, by id.
        tuning: The clips for tuning the filters, by id.
        results: Predictions and rows on disk.
        failed: The reason of every clip that could not be evaluated, by its id.
        numbers: Everything that the numbers depend on, as plain values.
    """

    settings: ClipSettings
    model: LDEQ
    engine: Engine
    clips: dict[str, Clip]
    tuning: dict[str, Clip]
    results: VideoResults
    failed: dict[str, str]
    numbers: dict[str, Any]

    @property
    def rows(self) -> list[ClipRow]:
        """The rows of the evaluated clips, in the order of the split."""
        return [self.results.rows[video_id] for video_id in self.clips if video_id in self.results.rows]

    @property
    def evaluated(self) -> list[Clip]:
        """The clips of `rows`."""
        return [self.clips[row.video_id] for row in self.rows]

    @property
    def conditions(self) -> Conditions:
        """The data behind the numbers."""
        return describe_clips(
            self.settings.WFLW_V_dataset_path,
            self.settings.WFLW_V_split,
            {row.video_id: row.split for row in self.rows},
        )

    @property
    def averages(self) -> dict[str, dict[str, float | int | None]]:
        """The averages of "easy" and "hard", if a clip of it was evaluated."""
        rows = self.rows
        return {name: average([row for row in rows if row.split == name]) for name in sorted({r.split for r in rows})}

    def write(self, further: Mapping[str, Any] | None = None) -> None:
        """Write per_video.csv and results.json.

        Args:
            further: Further entries of results.json.

        Raises:
            OutputError: If a file cannot be written.
        """
        self.results.write_rows([*self.clips, *self.tuning])
        conditions = self.conditions
        machine = {"device": next(self.model.parameters()).device.type, "torch": torch.__version__}
        content = {
            "evaluated": conditions.text,
            "benchmark": conditions.benchmark,
            "average": average(self.rows),
            "count": len(self.rows),
            "splits": self.averages,
            "units": UNITS,
            "failed": self.failed,
            **(further or {}),
            "settings": self.numbers | machine,
        }
        write_json(self.results.folder / "results.json", content)

    def text(self) -> str:
        """The printed text: the original's line of the averages, the data, and a table."""
        total, averages = average(self.rows), self.averages
        if not self.rows:
            return "no clip was evaluated"
        lines = []
        if len(averages) > 1:
            for name, of_split in averages.items():
                numbers = f"(NME, NMJ) = {of_split['nme']:.2f}, {of_split['nmj']:.2f}"
                lines.append(f"{name}: {of_split['count']} clips, {numbers}")
        lines.append(f"Avg (NME, NMJ) = {total['nme']:.2f}, {total['nmj']:.2f}")
        lines += [self.conditions.text, format_averages({**averages, "all": total})]
        return "\n".join(lines)


def format_averages(averages: Mapping[str, Mapping[str, float | int | None]]) -> str:
    """The averages of several splits as a table."""
    heads = {
        "count": "clips",
        "nme": "NME %",
        "median_nme": "median NME %",
        "nmj": "NMJ",
        "median_nmj": "median NMJ",
        "evaluations": "evaluations per frame",
    }
    table = pd.DataFrame(averages).T[list(heads)].rename(columns=heads).astype({"clips": int})
    return table.to_string(float_format="{:.2f}".format)


def evaluate_clips(settings: ClipSettings, process: Process) -> ClipEvaluation | None:
    """Infer and score the clips that have no result yet; under torchrun every process does its share.

    The line of a clip is printed when its predictions are on disk. The output folder must be locked.

    Args:
        settings: See `ClipSettings`.
        process: This process.

    Returns:
        The evaluation; None on all processes of torchrun except the first.

    Raises:
        UserError: If an option, the checkpoint, the data or the output folder cannot be used.
    """
    initialise_decoder()
    use_threads(settings.threads)
    methods, scored = methods_of(settings), scored_method(settings)
    model = load_network(settings.landmark_model_weights, process.device, NUM_LANDMARKS, settings.stop_rule)
    engine = open_engine(model, settings.engine, settings.precision)
    check_options(settings, model, methods, process)
    listed = list_clips(settings.WFLW_V_dataset_path, settings.WFLW_V_split)
    clips = {clip.video_id: clip for clip in listed.clips}
    tuning = choose_tuning_clips(settings, clips) if settings.compare else {}
    every = clips | tuning
    numbers = describe_numbers(settings, model, engine, methods, scored, tuning)
    protect_clips(settings, every.values(), methods)

    run: str | None = None
    kept: dict[str, Any] = {}
    failed: dict[str, str] = {}
    if process.rank == 0:
        run = open_run(settings.output_folder, numbers, settings.resume)
    results = VideoResults(settings.output_folder, methods, scored, broadcast(run, process))
    if process.rank == 0 and settings.resume:
        kept, failed = take_up(every, tuning, results)
        print(f"{len(kept)} of {len(every)} clips are already done")
    evaluated = {video_id: clip for video_id, clip in clips.items() if video_id not in tuning}
    if process.rank == 0:
        of_split = {video_id: clip.split for video_id, clip in evaluated.items()}
        print(describe_clips(settings.WFLW_V_dataset_path, settings.WFLW_V_split, of_split).text)
    kept, failed = broadcast((kept, failed), process)
    results.rows.update(kept)
    left = [clip for video_id, clip in every.items() if video_id not in kept and video_id not in failed]
    share = plan_slots([clip.frames for clip in left], process.world_size) if left else []
    mine = [left[index] for index in share[process.rank]] if process.rank < len(share) else []
    broken = infer_and_score(mine, tuning, model, engine, results, settings, process)
    parts = gather((results.rows, broken), process)
    if parts is None:
        return None
    for rows, of_process in parts:
        results.rows.update(rows)
        failed |= of_process
    return ClipEvaluation(settings, model, engine, evaluated, tuning, results, listed.broken | failed, numbers)


def check_options(settings: ClipSettings, model: LDEQ, methods: Sequence[Method], process: Process) -> None:
    """Check that the methods work with this network and these processes.

    Raises:
        UserError: If they do not.
    """
    fresh = any(method.variant is None for method in methods)
    if model.config.mode == "explicit" and not all(method.variant is None for method in methods):
        raise CheckpointError(
            f"{settings.landmark_model_weights}: RwR needs an implicit network, this one is explicit; use --rwr false "
            "without --compare and --plot"
        )
    if process.world_size > 1 and fresh and settings.stop_rule == "batch" and settings.WFLW_V_batch_size > 1:
        raise OptionError(
            "--stop_rule batch: without RwR, parallel clips depend on each other; run it in one process, or "
            "with --WFLW_V_batch_size 1"
        )


def choose_tuning_clips(settings: ClipSettings, clips: Mapping[str, Clip]) -> dict[str, Clip]:
    """The clips for tuning the filters, by id: those of the command line, or an even choice of the split.

    Raises:
        InputError: If a clip cannot be used, or no clip is left to evaluate.
    """
    if settings.tuning_ids is None:
        ids = sorted(clips)[:: max(4, math.ceil(len(clips) / MAX_TUNING_CLIPS))]
    else:
        ids = read_tuning_ids(settings.tuning_ids)
    try:
        tuning = {
            video_id: clips.get(video_id) or open_clip(settings.WFLW_V_dataset_path, video_id, "") for video_id in ids
        }
    except ClipError as error:
        raise InputError(f"--tuning_ids: {error}") from error
    if not clips.keys() - tuning.keys():
        raise InputError("--compare: all clips are used for tuning the filters, none is left to evaluate; add clips")
    return tuning


def read_tuning_ids(given: Sequence[str]) -> list[str]:
    """The given ids, or the ids in the given file.

    Raises:
        InputError: If the file is not a list of ids.
    """
    if len(given) > 1 or not Path(given[0]).is_file():
        return list(given)
    path = Path(given[0])
    try:
        ids = read_text(path).split()
    except InputError as error:
        raise InputError(f"--tuning_ids: {error}") from error
    if not ids:
        raise InputError(f"--tuning_ids: {path}: lists no clip; write one id per line, or leave the option out")
    return ids


def describe_numbers(
    settings: ClipSettings,
    model: LDEQ,
    engine: Engine,
    methods: Sequence[Method],
    scored: Method,
    tuning: Mapping[str, Clip],
) -> dict[str, Any]:
    """Everything that the numbers depend on, as plain values; a run is only resumed with the same values."""
    fresh = any(method.variant is None for method in methods) and model.config.mode == "implicit"
    with settings.landmark_model_weights.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    configurations = {method.name: method.rwr(settings) for method in methods}
    return {
        "weights": str(settings.landmark_model_weights),
        "weights_sha256": weights,
        "dataset": str(settings.WFLW_V_dataset_path.resolve()),
        "split": settings.WFLW_V_split,
        "modes": list(configurations),
        "scored": scored.name,
        "rwr": {name: plain_values(config) for name, config in configurations.items() if config is not None},
        "solver": model.config.to_dict()["solver"] if fresh else None,
        # Parallel frames affect each other only under this rule.
        "batch_size": settings.WFLW_V_batch_size if fresh and settings.stop_rule == "batch" else None,
        "crop": settings.crop,
        "precision": settings.precision,
        "engine": engine.name,
        "tuning_clips": sorted(tuning),
    }


def protect_clips(settings: ClipSettings, clips: Iterable[Clip], methods: Sequence[Method]) -> None:
    """Check that no result replaces a file of the dataset or the checkpoint.

    Raises:
        OutputError: If one would.
    """
    folder, root = settings.output_folder, settings.WFLW_V_dataset_path
    names = ["settings.json", "results.json", "per_video.csv", "comparison.csv", "comparison.png", "convergence.png"]
    inputs = [settings.landmark_model_weights, *(root / "splits").glob("*.txt")]
    inputs += [Path(name) for name in settings.tuning_ids or ()]
    for clip in clips:
        names += [f"videos/{clip.video_id}.mp4", f"plots/{clip.video_id}.png"]
        names += [f"predictions/{method.name}/{clip.video_id}.npz" for method in methods]
        inputs += [clip.video_path, *(root / of / f"{clip.video_id}.npy" for of in ("bboxes", "landmarks"))]
    protect_inputs([folder / name for name in names], inputs)


def take_up(
    clips: Mapping[str, Clip], tuning: Mapping[str, Clip], results: VideoResults
) -> tuple[dict[str, ClipRow], dict[str, str]]:
    """Score the finished clips of the run to resume.

    Returns:
        Their rows, and the reason of each clip that cannot be scored, by id.
    """
    rows, failed = {}, {}
    for video_id, clip in clips.items():
        if not results.is_done(clip):
            continue
        try:
            use = TUNING if video_id in tuning else EVALUATED
            rows[video_id] = score_clip(clip, results.load(clip, results.scored), use)
        except ClipError as error:
            failed[video_id] = str(error)
    return rows, failed


def infer_and_score(
    clips: Sequence[Clip],
    tuning: Mapping[str, Clip],
    model: LDEQ,
    engine: Engine,
    results: VideoResults,
    settings: ClipSettings,
    process: Process,
) -> dict[str, str]:
    """Infer clips; save, score and print each when it ends.

    Returns:
        The reason of every clip that could not be evaluated, by its id.
    """
    broken: dict[str, str] = {}

    def finish(inferred: InferredClip) -> None:
        clip = inferred.clip
        try:
            if inferred.reason:
                raise ClipError(inferred.reason)
            results.save(clip, inferred.predictions)
            use = TUNING if clip.video_id in tuning else EVALUATED
            row = score_clip(clip, inferred.predictions[results.scored], use)
        except ClipError as error:
            broken[clip.video_id] = str(error)
            return
        results.rows[clip.video_id] = row
        if process.rank == 0:
            results.write_rows(results.rows)
        scores = f"video {clip.video_id} (NME, NMJ) = ({row.nme:.2f}, {row.nmj:.2f})"
        tqdm.write(scores if use == EVALUATED else f"{scores}, for tuning")

    frames = sum(clip.frames for clip in clips)
    with progress_bar(frames, "frame", shown=process.rank == 0) as progress:
        try:
            ended = infer_clips(clips, model, engine, results.methods, settings, tqdm.write, progress.update)
            with closing(ended), WriteBehind(finish, CLIPS_BEHIND) as behind:
                for inferred in ended:
                    behind.put(inferred)
        except KeyboardInterrupt:
            tqdm.write(f"{len(results.rows)} clips are done; resume with --resume")
            raise
    return broken
