"""The pictures of a video evaluation: plots of clips, convergence, the comparison, clips with their landmarks."""

from collections.abc import Sequence

import numpy as np

from datasets.wflw_v import Clip, frame_rate, read_boxes, read_frames, read_landmarks
from evaluation.convergence import convergence
from evaluation.methods import Method, rwr_of
from evaluation.settings import ClipSettings
from evaluation.video_comparison import compare
from evaluation.video_figures import clip_figure, convergence_figure, draw_overlay
from evaluation.video_inference import load_crops
from evaluation.video_results import VideoResults
from evaluation.wflw_v import ClipEvaluation
from models import LDEQ
from utils.crops import CROP_RULES
from utils.files import prepare_output_folder, save_figure
from utils.metrics import frame_jitter, nme
from utils.progress import progress_bar
from utils.writers import VideoWriter

CONVERGENCE_CLIPS = 4
CONVERGENCE_FRAMES = 51
CONVERGENCE_EVERY = 10
CONVERGENCE_EVALUATIONS = 12


def write_further_results(evaluation: ClipEvaluation) -> str | None:
    """Write the plots, the comparison and the videos that the command line asks for.

    Returns:
        The comparison as text; None without `compare`, or if no clip was evaluated.

    Raises:
        UserError: If a clip has been removed or a file cannot be written.
    """
    settings, results, clips = evaluation.settings, evaluation.results, evaluation.evaluated
    if not clips:
        return None
    if settings.compare or settings.plot:
        # One crop only: with several crops a plot would have too many curves.
        plot_clips(clips, [method for method in results.methods if method.crop == settings.crop], results)
        draw_convergence(clips, evaluation.model, settings, results, evaluation.conditions.text)
    comparison = None
    if settings.compare:
        comparison = compare(
            clips, list(evaluation.tuning.values()), evaluation.model, evaluation.engine, results, settings
        )
        comparison.write(results, f"{settings.landmark_model_weights.name}\n{evaluation.conditions.text}")
        evaluation.write({"comparison": comparison.plain()})
    if settings.save_video:
        save_videos(clips, results.scored, results)
    return comparison.text() if comparison else None


def draw_convergence(
    clips: Sequence[Clip], model: LDEQ, settings: ClipSettings, results: VideoResults, data: str
) -> None:
    """Plot the residual against evaluations from a cold start and from the warm start of RwR.

    Args:
        clips: The clips; the first few are used.
        model: The network.
        settings: See `ClipSettings`.
        results: Has the folder.
        data: What the clips are, for the title.
    """
    rule, config = CROP_RULES[settings.crop], rwr_of(settings.rwr_variant, settings)
    residuals: dict[str, list[np.ndarray]] = {}
    for clip in clips[:CONVERGENCE_CLIPS]:
        crops = load_crops(clip, CONVERGENCE_FRAMES, model, (rule,))[rule]
        traces = convergence(model, config, crops.images, crops.matrices, CONVERGENCE_EVERY, CONVERGENCE_EVALUATIONS)
        for name, of_clip in traces.items():
            residuals.setdefault(name, []).append(of_clip)
    if residuals:
        joined = {name: np.concatenate(of_clips, axis=1) for name, of_clips in residuals.items()}
        solver = model.config.solver
        frames = next(iter(joined.values())).shape[1]
        measured = f"{frames} frames of {min(len(clips), CONVERGENCE_CLIPS)} clips"
        figure = convergence_figure(
            joined,
            solver.criterion,
            f"{settings.landmark_model_weights.name}, {measured}\n{data}",
            solver.tol,
            config.max_iters + config.final_evaluation,
        )
        save_figure(figure, results.folder / "convergence.png")


def plot_clips(clips: Sequence[Clip], methods: Sequence[Method], results: VideoResults) -> None:
    """Plot NME and jitter over time of every clip by some methods, into plots/<id>.png."""
    folder = results.folder / "plots"
    prepare_output_folder(folder)
    with progress_bar(len(clips), "clip", "plots") as progress:
        for clip in clips:
            predicted = {method.title: results.load(clip, method).landmarks for method in methods}
            title = f"{clip.video_id}, {methods[0].crop} crops"
            save_figure(clip_figure(title, predicted, read_landmarks(clip)), folder / f"{clip.video_id}.png")
            progress.update()


def save_videos(clips: Sequence[Clip], method: Method, results: VideoResults) -> None:
    """Write every clip with its predicted and true landmarks, box, NME and jitter, into videos/<id>.mp4."""
    folder = results.folder / "videos"
    prepare_output_folder(folder)
    with progress_bar(sum(clip.frames for clip in clips), "frame", "videos") as progress:
        for clip in clips:
            predicted = results.load(clip, method).landmarks
            true, boxes = read_landmarks(clip), read_boxes(clip)
            errors, jitter = nme(predicted, true), [None, *frame_jitter(predicted, true)]
            with VideoWriter(folder / f"{clip.video_id}.mp4", frame_rate(clip)) as writer:
                for overlay in zip(read_frames(clip), predicted, true, boxes, errors, jitter, strict=True):
                    writer.write(draw_overlay(*overlay))
                    progress.update()
