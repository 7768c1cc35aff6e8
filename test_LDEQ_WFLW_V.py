"""WFLW-V video evaluation: NME and NMJ of every clip, with RwR or without.

python test_LDEQ_WFLW_V.py               # the shipped weights on the shipped sample
python test_LDEQ_WFLW_V.py --landmark_model_weights final.pth.tar --WFLW_V_dataset_path /path/to/WFLW_V \\
    --WFLW_V_split easy --rwr true --WFLW_V_batch_size 5 --WFLW_V_workers 8
python test_LDEQ_WFLW_V.py ... --resume  # go on with a run that was stopped
python test_LDEQ_WFLW_V.py ... --compare # RwR, no RwR, and no RwR with temporal filters, on the same frames

The dataset has the layout of WFLW-V (datasets/wflw_v.py), the weights are ours or those of the original release. As
each clip ends, the output folder gets its predictions (predictions/) and a row of per_video.csv; at the end
results.json, with --compare comparison.csv, comparison.png, convergence.png and plots/<id>.png, with --save_video
videos/<id>.mp4.

A clip that cannot be read is reported with the reason, the others are evaluated, and the exit status is 1.

With RwR a frame takes --rwr_max_iters evaluations of the cell and a final one. Without, every frame is solved afresh
by the checkpoint's own solver; under --stop_rule batch the frames side by side then form a batch, and the numbers
depend on --WFLW_V_batch_size. Otherwise they do not.
"""

import argparse
import hashlib
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.clip_stream import Frame, read_crops, stream_crops
from datasets.wflw import NUM_LANDMARKS
from datasets.wflw_v import (
    SPLITS,
    Clip,
    frame_rate,
    list_clips,
    open_clip,
    published_results,
    read_boxes,
    read_frames,
    read_landmarks,
)
from evaluation.comparison import TUNING_RULE, LabelledTrack, MethodScore, format_table, score_tracks, tune_filter
from evaluation.convergence import FrameSolver, convergence, milliseconds_per_frame
from evaluation.filters import filter_grids
from evaluation.video_figures import clip_figure, comparison_figure, convergence_figure, draw_overlay
from evaluation.video_results import ClipPredictions, ClipRow, VideoResults, average
from inference.network import load_network, resolve_device
from inference.options import add_machine_options, add_weights_option
from inference.streams import Streams
from models import LDEQ
from models.rwr import VARIANTS, RwRConfig
from solvers.contract import StopRule
from utils.command_line import format_duration, non_negative_integer, positive_integer, run, true_or_false
from utils.crops import CROP_RULES, CropRule
from utils.errors import CheckpointError, ClipError, InputError
from utils.files import prepare_output_folder, save_figure, write_csv, write_json
from utils.geometry import box_to_crop, transform_points
from utils.images import to_network_input
from utils.metrics import frame_jitter, nme, video_nme, video_nmj
from utils.sources import initialise_decoder
from utils.writers import VideoWriter

ROOT = Path(__file__).parent
NO_RWR, RWR = "no_rwr", "rwr"
FAITHFUL = "faithful"
RWR_MODES = {RWR if variant == FAITHFUL else f"{RWR}_{variant}": variant for variant in VARIANTS}
TITLES = {NO_RWR: "no RwR", **{mode: "RwR" if mode == RWR else f"RwR, {of}" for mode, of in RWR_MODES.items()}}
MAX_TUNING_CLIPS = 20
TIMED_FRAMES = 30
EVALUATED, TUNING = "evaluated", "tuning"
CONVERGENCE = {"clips": 4, "frames": 51, "every": 10, "max_evals": 12}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_weights_option(parser)
    parser.add_argument(
        "--WFLW_V_dataset_path",
        type=Path,
        default=ROOT / "datasets" / "sample",
        help="folder of WFLW-V (default: the shipped sample)",
    )
    parser.add_argument("--WFLW_V_split", choices=SPLITS, default="all")
    parser.add_argument("--rwr", type=true_or_false, default=True, metavar="true|false")
    parser.add_argument(
        "--rwr_max_iters", type=positive_integer, default=1, help="evaluations of the cell a frame, but the final one"
    )
    parser.add_argument(
        "--rwr_take_one_less_inference_step",
        type=true_or_false,
        default=False,
        metavar="true|false",
        help="whether to leave out the final evaluation",
    )
    parser.add_argument(
        "--rwr_variant",
        choices=VARIANTS,
        default=FAITHFUL,
        help="RwR as in the original, or one of the forms of models/rwr.py that steady more",
    )
    parser.add_argument(
        "--crop", choices=CROP_RULES, default="original", help="how the faces are cut out of the frames"
    )
    parser.add_argument("--WFLW_V_batch_size", type=positive_integer, default=5, help="clips side by side")
    parser.add_argument("--WFLW_V_workers", type=non_negative_integer, default=2, help="processes that decode clips")
    parser.add_argument(
        "--verbose_solver", type=true_or_false, default=False, metavar="true|false", help="print a line a frame"
    )
    add_machine_options(parser)
    parser.add_argument(
        "--stop_rule",
        choices=get_args(StopRule),
        default="sample",
        help="whether, without RwR, each frame or the batch of frames side by side decides when a solve stops",
    )
    parser.add_argument("--output_folder", type=Path, default=Path("results/wflw_v"))
    parser.add_argument("--resume", action="store_true", help="keep the clips that an earlier run has finished")
    parser.add_argument(
        "--compare", action="store_true", help="RwR, no RwR, and no RwR with temporal filters, on the same frames"
    )
    parser.add_argument(
        "--tuning_ids",
        nargs="+",
        metavar="ID",
        help="clips that --compare tunes the filters on and does not evaluate, or a file that lists them, an id a line "
        f"(default: every fourth clip in sorted order, more sparsely where that is over {MAX_TUNING_CLIPS})",
    )
    parser.add_argument(
        "--plot", action="store_true", help="plot clips with RwR and without, and convergence, as --compare does"
    )
    parser.add_argument("--save_video", action="store_true", help="write the clips with their landmarks")
    args = parser.parse_args()
    if args.tuning_ids and not args.compare:
        parser.error("--tuning_ids goes with --compare")
    return args


def main() -> int:
    """Run the evaluation; returns the exit status."""
    args = parse_arguments()
    started = time.monotonic()
    # TF32 would round the convolutions of "fp32" to 10 bits, and differently for other batch sizes.
    torch.backends.cudnn.allow_tf32 = False
    initialise_decoder()
    prepare_output_folder(args.output_folder)
    model = load_network(args.landmark_model_weights, resolve_device(args.device), NUM_LANDMARKS, args.stop_rule)
    recurrent = next(mode for mode, variant in RWR_MODES.items() if variant == args.rwr_variant)
    scored = recurrent if args.rwr else NO_RWR
    if args.compare:
        modes = tuple(dict.fromkeys((NO_RWR, RWR, recurrent)))
    else:
        modes = (NO_RWR, recurrent) if args.plot else (scored,)
    if model.config.mode == "explicit" and modes != (NO_RWR,):
        raise CheckpointError(
            f"{args.landmark_model_weights}: an explicit network has no fixed point to carry on; use --rwr false "
            "without --compare and --plot"
        )
    listed = list_clips(args.WFLW_V_dataset_path, args.WFLW_V_split)
    clips = {clip.video_id: clip for clip in listed.clips}
    tuning = choose_tuning_clips(args, clips) if args.compare else {}
    clips |= tuning
    settings = describe_numbers(args, model, modes, scored, tuning)
    results = VideoResults(args.output_folder, modes, settings, args.resume)
    if args.resume:
        print(f"{len(results.rows)} of {len(clips)} clips are done already")

    broken = listed.broken | evaluate(clips, tuning.keys(), model, scored, results, args)
    rows = [row for row in results.rows.values() if row.use == EVALUATED]
    content = summarise(rows, broken)
    done = [clips[row.video_id] for row in rows]
    if done and (args.compare or args.plot):
        plot_clips(done, results)
        draw_convergence(done, model, recurrent, args)
    if done and args.compare:
        content["comparison"] = compare(done, list(tuning.values()), model, results, args)
    if args.save_video:
        save_videos(done, scored, results)
    machine = {"device": resolve_device(args.device).type, "torch": torch.__version__}
    write_json(args.output_folder / "results.json", {**content, "settings": settings | machine})
    print(f"Results: {args.output_folder}")
    print(f"Total time: {format_duration(time.monotonic() - started)}")
    for video_id, reason in broken.items():
        print(f"not evaluated: {video_id}: {reason}")
    return 1 if broken else 0


def choose_tuning_clips(args: argparse.Namespace, clips: dict[str, Clip]) -> dict[str, Clip]:
    """The clips that filters are tuned on, by id: those of the command line, or an even choice of the split."""
    if not args.tuning_ids:
        ids = sorted(clips)[:: max(4, math.ceil(len(clips) / MAX_TUNING_CLIPS))]
    else:
        ids = args.tuning_ids
        if len(ids) == 1 and Path(ids[0]).is_file():
            ids = Path(ids[0]).read_text(encoding="utf-8").split()
    try:
        tuning = {
            video_id: clips.get(video_id) or open_clip(args.WFLW_V_dataset_path, video_id, "") for video_id in ids
        }
    except ClipError as error:
        raise InputError(f"--tuning_ids: {error}") from error
    if not clips.keys() - tuning.keys():
        raise InputError("--compare: no clip is left to evaluate beside those that filters are tuned on; add clips")
    return tuning


def describe_numbers(
    args: argparse.Namespace, model: LDEQ, modes: Sequence[str], scored: str, tuning: dict[str, Clip]
) -> dict[str, Any]:
    """What the numbers depend on, as plain values; a run is only resumed with the same."""
    fresh = NO_RWR in modes and model.config.mode == "implicit"
    with args.landmark_model_weights.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "weights": str(args.landmark_model_weights),
        "weights_sha256": weights,
        "dataset": str(args.WFLW_V_dataset_path.resolve()),
        "split": args.WFLW_V_split,
        "modes": list(modes),
        "scored": scored,
        # As text, since JSON has no infinity.
        "rwr": {mode: str(rwr_config(mode, args)) for mode in modes if mode != NO_RWR},
        "solver": model.config.to_dict()["solver"] if fresh else None,
        # Only under this rule do frames that lie side by side affect each other.
        "batch_size": args.WFLW_V_batch_size if fresh and args.stop_rule == "batch" else None,
        "crop": args.crop,
        "precision": args.precision,
        "tuning_clips": sorted(tuning),
    }


def rwr_config(mode: str, args: argparse.Namespace) -> RwRConfig:
    """RwR in one of its modes, with the evaluations that the command line asks for."""
    return replace(
        VARIANTS[RWR_MODES[mode]],
        max_iters=args.rwr_max_iters,
        final_evaluation=not args.rwr_take_one_less_inference_step,
    )


def make_solver(mode: str, model: LDEQ, slots: int, args: argparse.Namespace) -> FrameSolver:
    """The way in which a mode solves its frames."""
    config = None if mode == NO_RWR else rwr_config(mode, args)
    return Streams(model, config, precision=args.precision, batch_size=slots).step


def to_device(images: np.ndarray, model: LDEQ) -> Tensor:
    """Crops (n, S, S, 3) uint8 RGB as the network takes them."""
    return to_network_input(images).to(next(model.parameters()).device, memory_format=torch.channels_last)


def evaluate(
    clips: dict[str, Clip],
    tuning: Iterable[str],
    model: LDEQ,
    mode: str,
    results: VideoResults,
    args: argparse.Namespace,
) -> dict[str, str]:
    """Infer and score the clips that have no result yet.

    Returns:
        The reason of every clip that could not be evaluated, by its id.
    """
    left = [clip for clip in clips.values() if clip.video_id not in results.rows]
    if not left:
        return {}
    # As many slots as without an earlier run: so a resumed one repeats its numbers to the last digit.
    slots = min(args.WFLW_V_batch_size, len(clips))
    solvers = {name: make_solver(name, model, slots, args) for name in results.modes}
    rule = CROP_RULES[args.crop]
    predictions: dict[int, dict[str, ClipPredictions]] = {}
    broken = {}
    with tqdm(total=sum(clip.frames for clip in left), unit="frame") as progress:
        for step in stream_crops(left, slots, model.config.image_size, args.WFLW_V_workers, (rule,)):
            for end in step.ended:
                clip, of_clip = left[end.clip], predictions.pop(end.clip, {})
                try:
                    if end.reason:
                        raise ClipError(end.reason)
                    use = TUNING if clip.video_id in tuning else EVALUATED
                    row = finish_clip(clip, use, of_clip, mode, results)
                    scores = f"video {clip.video_id} (NME, NMJ) = ({row.nme:.2f}, {row.nmj:.2f})"
                    tqdm.write(scores if use == EVALUATED else f"{scores}, for tuning")
                except ClipError as error:
                    broken[clip.video_id] = str(error)
            if step.slots.size == 0:
                continue
            images, matrices = to_device(step.images[:, 0], model), step.matrices[:, 0]
            for name, solver in solvers.items():
                frames = solver(images, matrices, step.slots, step.frames == 0)
                for row, (index, position) in enumerate(zip(step.clips.tolist(), step.frames.tolist(), strict=True)):
                    of_clip = predictions.setdefault(index, {})
                    if name not in of_clip:
                        of_clip[name] = ClipPredictions.empty(left[index].frames, NUM_LANDMARKS)
                    landmarks = transform_points(frames.keypoints[row], matrices[row], inverse=True)
                    of_clip[name].landmarks[position] = landmarks
                    of_clip[name].evaluations[position] = frames.evaluations[row]
                    of_clip[name].residual[position] = frames.residual[row]
                    if args.verbose_solver:
                        tqdm.write(
                            f"video {left[index].video_id} frame {position} {TITLES[name]}: "
                            f"{frames.evaluations[row]} evaluations, residual {frames.residual[row]:.2e}"
                        )
            progress.update(len(step.slots))
    return broken


def finish_clip(
    clip: Clip, use: str, predictions: dict[str, ClipPredictions], mode: str, results: VideoResults
) -> ClipRow:
    """Save the predictions for a clip, then score those of a mode and append the row.

    Raises:
        ClipError: If the clip cannot be scored.
    """
    for name, of_mode in predictions.items():
        results.save_predictions(clip.video_id, name, of_mode)
    predicted, true = predictions[mode], read_landmarks(clip)
    try:
        clip_nme, clip_nmj = video_nme(predicted.landmarks, true), video_nmj(predicted.landmarks, true)
    except ValueError as error:
        raise ClipError(f"cannot be scored: {error}") from error
    reference_nme, reference_nmj = published_results().get(clip.video_id, (np.nan, np.nan))
    return results.add(
        ClipRow(
            video_id=clip.video_id,
            nme=clip_nme,
            nmj=clip_nmj,
            frames=clip.frames,
            split=clip.split,
            use=use,
            evaluations=float(predicted.evaluations.mean()),
            residual=float(np.median(predicted.residual)),
            reference_nme=reference_nme,
            reference_nmj=reference_nmj,
            nme_difference=clip_nme - reference_nme,
            nmj_difference=clip_nmj - reference_nmj,
        )
    )


def summarise(rows: Sequence[ClipRow], broken: dict[str, str]) -> dict[str, Any]:
    """The averages, printed and as plain values."""
    splits = {name: [row for row in rows if row.split == name] for name in sorted({row.split for row in rows})}
    averages = {name: average(of_split) for name, of_split in splits.items()}
    if len(averages) > 1:
        for name, of_split in averages.items():
            print(f"{name}: {of_split['count']} clips, (NME, NMJ) = {of_split['nme']:.2f}, {of_split['nmj']:.2f}")
    total = average(rows)
    if rows:
        print(f"Avg (NME, NMJ) = {total['nme']:.2f}, {total['nmj']:.2f}")
        print(
            f"{len(rows)} clips, median NMJ {total['median_nmj']:.2f}, {total['evaluations']:.2f} evaluations a frame"
        )
    return {"average": total, "count": len(rows), "splits": averages, "failed": broken}


def load_tracks(clips: Iterable[Clip], mode: str, results: VideoResults) -> Iterator[LabelledTrack]:
    """The saved predictions for clips beside the truth, a clip at a time."""
    for clip in clips:
        predicted = results.load_predictions(clip.video_id, mode).landmarks
        face_side = 1 / box_to_crop(read_boxes(clip)[0], size=1)[0, 0]
        yield LabelledTrack(predicted, read_landmarks(clip), face_side)


def compare(
    evaluated: Sequence[Clip], tuning: Sequence[Clip], model: LDEQ, results: VideoResults, args: argparse.Namespace
) -> dict[str, Any]:
    """Score RwR, no RwR, and no RwR with each filter at its best setting; print, write and plot the table."""
    scores, costs = [], {}
    for mode in results.modes:
        solved = [results.load_predictions(clip.video_id, mode).evaluations for clip in evaluated]
        images, matrices = load_crops(evaluated[0], TIMED_FRAMES, model, CROP_RULES[args.crop])
        milliseconds = milliseconds_per_frame(make_solver(mode, model, 1, args), images, matrices)
        costs[mode] = {"evaluations": float(np.concatenate(solved).mean()), "milliseconds": milliseconds}
        scores.append(MethodScore(TITLES[mode], **score_tracks(load_tracks(evaluated, mode, results)), **costs[mode]))
    first = next(load_tracks(evaluated, NO_RWR, results))
    for name, grid in tqdm(filter_grids().items(), desc="filters"):
        best = tune_filter(grid, partial(load_tracks, tuning, NO_RWR, results))
        score = score_tracks(track.filtered(best) for track in load_tracks(evaluated, NO_RWR, results))
        started = time.perf_counter()
        best(first.predicted)
        filtering = 1000 * (time.perf_counter() - started) / len(first.predicted)
        cost = costs[NO_RWR] | {"milliseconds": costs[NO_RWR]["milliseconds"] + filtering}
        scores.append(MethodScore(f"{TITLES[NO_RWR]}, {name} ({best.setting})", **score, **cost))

    ids = [clip.video_id for clip in tuning]
    caption = (
        f"{len(evaluated)} clips. Filters at their best setting: {TUNING_RULE}. "
        f"Tuning clips, not evaluated: {', '.join(ids)}. Lag in frames, positive where late. Milliseconds a frame: the "
        "network on one clip, and the filter; without decoding."
    )
    print(f"\n{format_table(scores)}\n{caption}\n")
    columns = {name: [getattr(score, name) for score in scores] for name in asdict(scores[0])}
    write_csv(results.folder / "comparison.csv", columns)
    save_figure(comparison_figure(scores, caption), results.folder / "comparison.png")
    table = [{name: None if value != value else value for name, value in asdict(score).items()} for score in scores]
    return {"methods": table, "tuning_clips": ids, "tuning_rule": TUNING_RULE}


def load_crops(clip: Clip, frames: int, model: LDEQ, rule: CropRule) -> tuple[Tensor, np.ndarray]:
    """The first crops of a clip on the model's device, (n, 3, S, S), and their matrices, (n, 2, 3)."""
    read: list[Frame] = list(islice(read_crops(clip, model.config.image_size, (rule,)), frames))
    return to_device(np.stack([frame.images[0] for frame in read]), model), np.stack([f.matrices[0] for f in read])


def draw_convergence(clips: Sequence[Clip], model: LDEQ, mode: str, args: argparse.Namespace) -> None:
    """Plot the residual against evaluations from a cold and from the warm start of a mode of RwR."""
    residuals: dict[str, list[np.ndarray]] = {}
    for clip in clips[: CONVERGENCE["clips"]]:
        images, matrices = load_crops(clip, CONVERGENCE["frames"], model, CROP_RULES[args.crop])
        every, max_evals = CONVERGENCE["every"], CONVERGENCE["max_evals"]
        for name, traces in convergence(model, rwr_config(mode, args), images, matrices, every, max_evals).items():
            residuals.setdefault(name, []).append(traces)
    if residuals:
        joined = {name: np.concatenate(traces, axis=1) for name, traces in residuals.items()}
        figure = convergence_figure(joined, model.config.solver.criterion)
        save_figure(figure, args.output_folder / "convergence.png")


def plot_clips(clips: Sequence[Clip], results: VideoResults) -> None:
    """Plot NME and jitter over time of every clip, with RwR and without."""
    folder = results.folder / "plots"
    prepare_output_folder(folder)
    for clip in tqdm(clips, desc="plots", unit="clip"):
        predicted = {TITLES[mode]: results.load_predictions(clip.video_id, mode).landmarks for mode in results.modes}
        save_figure(clip_figure(clip.video_id, predicted, read_landmarks(clip)), folder / f"{clip.video_id}.png")


def save_videos(clips: Sequence[Clip], mode: str, results: VideoResults) -> None:
    """Write every clip with its predicted and true landmarks, box, NME and jitter."""
    folder = results.folder / "videos"
    prepare_output_folder(folder)
    with tqdm(total=sum(clip.frames for clip in clips), desc="videos", unit="frame") as progress:
        for clip in clips:
            predicted = results.load_predictions(clip.video_id, mode).landmarks
            true, boxes = read_landmarks(clip), read_boxes(clip)
            errors, jitter = nme(predicted, true), [None, *frame_jitter(predicted, true)]
            with VideoWriter(folder / f"{clip.video_id}.mp4", frame_rate(clip)) as writer:
                for overlay in zip(read_frames(clip), predicted, true, boxes, errors, jitter, strict=True):
                    writer.write(draw_overlay(*overlay))
                    progress.update()


if __name__ == "__main__":
    sys.exit(run(main))
