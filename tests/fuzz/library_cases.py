"""Cases of the fuzz that use the library: damaged files, and arguments of another kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damage import (
    Generator,
    damage_array,
    damage_bytes,
    damage_json,
    damage_text,
    is_one_clear_error,
    odd_arguments,
    pick,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from datasets.clip_stream import read_crops
from datasets.wflw import WFLWCrops, load_wflw_test
from datasets.wflw_v import list_clips
from inference.landmark_files import read_boxes
from inference.landmark_tracker import LandmarkTracker
from inference.predictor import LandmarkPredictor
from inference.results import Face
from models import LDEQConfig, load_checkpoint, save_checkpoint
from models.checkpoints import CONFIG_KEY
from solvers import FixedPointConfig, solve
from tests.fuzz.stage import PropertyError, Stage
from utils.crops import crop_box
from utils.errors import UserError
from utils.geometry import box_to_crop
from utils.metrics import nme
from utils.sources import read_picture


def expect(path: Path, use: Callable[[], object]) -> str:
    """Use a damaged file through the library; whether that was a result or an error that names it."""
    try:
        use()
    except (UserError, OSError) as error:
        if not is_one_clear_error(error, path):
            raise PropertyError(f"not one line that names {path.name}: {error!r}") from error
        return "refused"
    return "result"


def checkpoint(stage: Stage, generator: Generator) -> str:
    """Bytes or configuration of a checkpoint."""
    path = stage.copy("weights.safetensors") / "weights.safetensors"
    if generator.random() < 0.4:
        path.write_bytes(damage_bytes(path.read_bytes(), generator))
    else:
        with safe_open(path, "pt") as file:
            config = damage_json(file.metadata()[CONFIG_KEY], generator)
        weights = load_file(path)
        if generator.random() < 0.3:
            name = str(pick(generator, tuple(name for name in weights if weights[name].is_floating_point())))
            weights[name] = torch.full_like(weights[name], torch.nan)
        save_file(weights, path, metadata={CONFIG_KEY: config})

    def use() -> None:
        model = load_checkpoint(path)
        output = model(torch.zeros(1, 3, model.config.image_size, model.config.image_size))
        if not output.keypoints.isfinite().all() and path.read_bytes():
            # A network whose weights are damaged, but finite, may have no finite answer; it has to say so.
            assert output.solution is None or int(output.solution.status[0]) == 2, "not finite, and not said"

    return expect(path, use)


def face_list(stage: Stage, generator: Generator) -> str:
    """A list of faces, or an image of one."""
    folder = stage.copy("faces") / "faces"
    if generator.random() < 0.7:
        path = folder / "test.txt"
        path.write_bytes(damage_text(path.read_text(), generator))
    else:
        path = folder / "test" / "1.png"
        path.write_bytes(damage_bytes(path.read_bytes(), generator))

    def use() -> None:
        data = load_wflw_test(folder)
        for image, landmarks in WFLWCrops(data.faces, 64):
            assert image.isfinite().all()
            assert landmarks.isfinite().all()

    return _expect_in(folder, use)


def _expect_in(folder: Path, use: Callable[[], object]) -> str:
    try:
        use()
    except (UserError, OSError) as error:
        if str(folder) not in str(error) or "\n" in str(error).strip():
            raise PropertyError(f"not one line that names a file: {error!r}") from error
        return "refused"
    return "result"


def clip(stage: Stage, generator: Generator) -> str:
    """Boxes, landmarks or video of a clip, or a list of clips: that clip's failure, the other one is read."""
    folder = stage.copy("clips") / "clips"
    kind = int(generator.integers(4))
    if kind == 0:
        path = folder / "splits" / "easy_video_IDs.txt"
        path.write_bytes(damage_text(path.read_text(), generator))
    elif kind == 1:
        path = folder / "videos" / "b.mp4"
        path.write_bytes(damage_bytes(path.read_bytes(), generator))
    else:
        damage_array(folder / ("bboxes" if kind == 2 else "landmarks") / "b.npy", generator)

    def use() -> None:
        clips = list_clips(folder)
        for found in clips.clips:
            try:
                for frame in read_crops(found, 64):
                    assert np.isfinite(frame.matrices).all()
            except UserError as error:
                if found.video_id != "b" or "\n" in str(error):
                    raise
        if kind and "a" not in {found.video_id for found in clips.clips}:
            raise PropertyError("the sound clip is gone")

    return _expect_in(folder, use)


def picture(stage: Stage, generator: Generator) -> str:
    """A picture of any format."""
    name = f"picture.{pick(generator, ('png', 'jpg', 'webp', 'bmp', 'tiff', 'ppm'))}"
    path = stage.copy(name) / name
    path.write_bytes(damage_bytes(path.read_bytes(), generator))

    def use() -> None:
        found = read_picture(path)
        assert found.dtype == np.uint8
        assert found.ndim == 3
        assert found.size

    return expect(path, use)


def boxes(stage: Stage, generator: Generator) -> str:
    """Boxes of the user's."""
    if generator.random() < 0.5:
        path = stage.copy("boxes.csv") / "boxes.csv"
        path.write_bytes(damage_text(path.read_text(), generator))
    else:
        path = stage.copy("boxes.npy") / "boxes.npy"
        damage_array(path, generator)

    def use() -> None:
        for of_frame in read_boxes(path).values():
            for box in of_frame.values():
                assert np.isfinite(box).all()

    return expect(path, use)


def arguments(stage: Stage, generator: Generator) -> str:
    """An argument of another kind for a call of the library."""
    picture, box = np.zeros((120, 160, 3), np.uint8), [20.0, 20, 100, 100]
    model, points = stage.model, np.random.default_rng(0).uniform(0, 100, (2, 98, 2))
    face = {"landmarks": points[0], "uncertainty": np.ones(98), "box": box, "evaluations": 2, "residual": 0.1}
    field = str(pick(generator, tuple(face)))
    calls: tuple[Callable[[Any], object], ...] = (
        lambda value: Face(**{**face, field: value}).to_dict(),
        lambda value: LandmarkPredictor(model)(value, [box]),
        lambda value: LandmarkPredictor(model)(picture, value),
        lambda value: LandmarkPredictor(value),
        lambda value: LandmarkTracker(model).step(picture, value),
        lambda value: model(value),
        lambda value: load_checkpoint(value),
        lambda value: save_checkpoint(value, stage.work / "weights.safetensors"),
        lambda value: save_checkpoint(model, stage.work / "weights.safetensors", value),
        lambda value: solve(lambda z: z / 2, value, FixedPointConfig()),
        lambda value: LDEQConfig(**{str(pick(generator, tuple(LDEQConfig.__dataclass_fields__))): value}),
        lambda value: nme(value, points),
        lambda value: box_to_crop(value),
        lambda value: crop_box(picture, box, value),
    )
    value = pick(generator, odd_arguments())
    try:
        calls[int(generator.integers(len(calls)))](value)
    except ValueError as error:
        if "\n" in str(error).strip():
            raise PropertyError(f"more than one line: {error!r}") from error
        return "refused"
    return "result"
