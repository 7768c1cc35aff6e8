"""Inference of clips, several in parallel, by one or more methods."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from datasets.clip_stream import Frame, TimeStep, read_crops, stream_crops
from datasets.wflw_v import Clip
from evaluation.methods import Method
from evaluation.settings import ClipSettings
from inference.engines import Engine
from inference.results import FrameResults
from inference.streams import Streams
from models import LDEQ
from utils.crops import CropRule
from utils.geometry import transform_points
from utils.images import to_network_input
from utils.landmark_groups import NUM_LANDMARKS
from utils.pipeline import ReadAhead

STEPS_AHEAD = 8
"""Time steps that are decoded and sorted while earlier ones are inferred."""


@dataclass(frozen=True, eq=False)
class ClipPredictions:
    """The predictions of a network for the T frames of a clip.

    Attributes:
        landmarks: (T, K, 2) float32 x, y in frame pixels; NaN if the solve failed.
        evaluations: (T,) int64 evaluations of the cell.
        start_residual: (T,) float32, see `inference.results.FrameResults`.
        answer_residual: (T,) float32, see `inference.results.FrameResults`.
    """

    landmarks: np.ndarray
    evaluations: np.ndarray
    start_residual: np.ndarray
    answer_residual: np.ndarray

    @classmethod
    def empty(cls, frames: int, points: int = NUM_LANDMARKS) -> "ClipPredictions":
        """Empty predictions for a clip of `frames` frames with `points` landmarks each."""
        return cls(
            np.full((frames, points, 2), np.nan, np.float32),
            np.zeros(frames, np.int64),
            np.full(frames, np.nan, np.float32),
            np.full(frames, np.nan, np.float32),
        )


@dataclass(frozen=True, eq=False)
class InferredClip:
    """A clip that has ended.

    Attributes:
        clip: The clip.
        predictions: The predictions of every method.
        reason: Why it cannot be evaluated; None if all its frames were inferred.
    """

    clip: Clip
    predictions: dict[Method, ClipPredictions]
    reason: str | None


def infer_clips(
    clips: Sequence[Clip],
    model: LDEQ,
    engine: Engine,
    methods: Sequence[Method],
    settings: ClipSettings,
    report: Callable[[str], None],
    advance: Callable[[int], object],
) -> Generator[InferredClip, None, None]:
    """Infer clips in parallel; they are decoded ahead.

    Args:
        clips: The clips; may be empty.
        model: In evaluation mode.
        engine: Its engine.
        methods: The methods.
        settings: See `ClipSettings`.
        report: Receives one line per frame, under `verbose_solver`.
        advance: Receives the number of finished frames.

    Yields:
        Every clip as it ends.
    """
    if not clips:
        return
    slots = settings.WFLW_V_batch_size
    streams = {method: method.streams(model, engine, slots, settings) for method in methods}
    rules = tuple(dict.fromkeys(method.rule for method in methods))
    steps = stream_crops(clips, slots, model.config.image_size, settings.WFLW_V_workers, rules)
    with ReadAhead(((step, to_network_input(step.images)) for step in steps), STEPS_AHEAD) as ahead:
        yield from _infer_steps(ahead, clips, streams, rules, settings, report, advance)


def _infer_steps(
    steps: Iterable[tuple[TimeStep, Tensor]],
    clips: Sequence[Clip],
    streams: dict[Method, Streams],
    rules: Sequence[CropRule],
    settings: ClipSettings,
    report: Callable[[str], None],
    advance: Callable[[int], object],
) -> Iterator[InferredClip]:
    predictions: dict[int, dict[Method, ClipPredictions]] = {}
    for step, images in steps:
        for end in step.ended:
            yield InferredClip(clips[end.clip], predictions.pop(end.clip, {}), end.reason)
        if step.slots.size == 0:
            continue
        for method, of_method in streams.items():
            crop = rules.index(method.rule)
            matrices = step.matrices[:, crop]
            frames = of_method.step(images[:, crop], matrices, step.slots, step.frames == 0)
            for index in step.clips.tolist():
                of_clip = predictions.setdefault(index, {})
                of_clip.setdefault(method, ClipPredictions.empty(clips[index].frames))
            _keep(frames, matrices, step, {index: predictions[index][method] for index in step.clips.tolist()})
            if settings.verbose_solver:
                for row, (index, position) in enumerate(zip(step.clips.tolist(), step.frames.tolist(), strict=True)):
                    report(
                        f"video {clips[index].video_id} frame {position} {method.title}: "
                        f"{frames.evaluations[row]} evaluations, start residual {frames.start_residual[row]:.2e}"
                    )
        advance(len(step.slots))


def _keep(frames: FrameResults, matrices: np.ndarray, step: TimeStep, predictions: dict[int, ClipPredictions]) -> None:
    """Store the results of the frames of a time step in the predictions of their clips."""
    for row, (index, position) in enumerate(zip(step.clips.tolist(), step.frames.tolist(), strict=True)):
        of_clip = predictions[index]
        of_clip.landmarks[position] = transform_points(frames.keypoints[row], matrices[row], inverse=True)
        of_clip.evaluations[position] = frames.evaluations[row]
        of_clip.start_residual[position] = frames.start_residual[row]
        of_clip.answer_residual[position] = frames.answer_residual[row]


def to_device(images: np.ndarray, model: LDEQ) -> Tensor:
    """The network's input for crops (n, S, S, 3) uint8 RGB."""
    return to_network_input(images).to(next(model.parameters()).device, memory_format=torch.channels_last)


def load_crops(clip: Clip, frames: int, model: LDEQ, rules: Sequence[CropRule]) -> dict[CropRule, "CropSequence"]:
    """The first crops of a clip by each crop rule, on the model's device."""
    read: list[Frame] = list(islice(read_crops(clip, model.config.image_size, rules), frames))
    return {
        rule: CropSequence(
            to_device(np.stack([frame.images[index] for frame in read]), model),
            np.stack([frame.matrices[index] for frame in read]),
        )
        for index, rule in enumerate(rules)
    }


@dataclass(frozen=True, eq=False)
class CropSequence:
    """The crops of consecutive frames of one clip.

    Attributes:
        images: (T, 3, S, S) on the model's device.
        matrices: (T, 2, 3) float64, from frame pixels to the crop as [0, 1] x [0, 1].
    """

    images: Tensor
    matrices: np.ndarray
