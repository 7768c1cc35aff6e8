"""Damaged checkpoints, lists, clips, pictures, boxes, options and run folders, from a seed.

python tests/fuzz/campaign.py --cases 3000 --seed 1

The property: a right result, or one line that names the file or option, as a `UserError` of the library or exit status
2 of a script (1 where the rest was evaluated); no other exception, no hang, every file that was there before intact.
Prints the counts by class, and the seed of every case that fails; `--only CLASS --first SEED --cases 1` does it again.
"""

import argparse
import contextlib
import hashlib
import io
import json
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fixtures")]

import cv2
import numpy as np
import torch
from damage import (
    WORDS,
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
from small_networks import small_model
from synthetic_clips import write_clip, write_split
from synthetic_faces import make_face, to_text, write_image

from datasets.clip_stream import read_crops
from datasets.wflw import SPLITS, WFLWCrops, load_wflw_test
from datasets.wflw_v import list_clips
from inference.landmark_files import read_boxes
from inference.landmark_tracker import LandmarkTracker
from inference.predictor import LandmarkPredictor
from inference.results import Face
from models import LDEQConfig, load_checkpoint, save_checkpoint
from models.checkpoints import CONFIG_KEY
from solvers import FixedPointConfig, solve
from utils.command_line import run
from utils.crops import crop_box
from utils.errors import UserError
from utils.geometry import box_to_crop
from utils.metrics import nme
from utils.sources import read_picture, silence_opencv

LONGEST = 60
"""Seconds that a case may take."""


class PropertyError(Exception):
    """The property does not hold; the message says how."""


class Stage:
    """What the cases begin with: sound files of every kind, of which each case gets a copy."""

    def __init__(self, folder: Path):
        self.sound = folder / "sound"
        self.work = folder / "work"
        model = small_model(landmarks=98, solver=FixedPointConfig(max_evals=4, tol=1e-3))
        self.model = model
        save_checkpoint(model, self.sound / "weights.safetensors")
        lines = []
        for number in range(3):
            image, landmarks = make_face(number)
            for split in (*SPLITS, "train"):
                write_image(self.sound / "faces" / split / f"{number}.png", image)
            lines.append(f"{number}.png {to_text(landmarks)}")
        for split in (*SPLITS, "train"):
            (self.sound / "faces" / f"{split}.txt").write_text("\n".join(lines))
        for name in ("a", "b"):
            write_clip(self.sound / "clips", name, 4)
        write_split(self.sound / "clips", "easy", ["a"])
        write_split(self.sound / "clips", "hard", ["b"])
        for suffix in ("png", "jpg", "webp", "bmp", "tiff", "ppm"):
            cv2.imwrite(str(self.sound / f"picture.{suffix}"), make_face(0)[0][:64, :80])
        np.save(self.sound / "boxes.npy", np.array([[30.0, 20, 90, 80]] * 4))
        (self.sound / "boxes.csv").write_text(
            "frame,face,x1,y1,x2,y2\n" + "".join(f"{frame},0,30,20,90,80\n" for frame in range(4))
        )
        self._train()

    def _train(self) -> None:
        status, message = call_script("train_LDEQ_WFLW", self.training_options(self.sound))
        assert status == 0, message

    @staticmethod
    def training_options(folder: Path) -> list[str]:
        """A run of one step."""
        return [
            "--dataset_path", str(folder / "faces"), "--output_folder", str(folder / "run"), "--backbone", "stem",
            "--image_size", "64", "--epochs", "1", "--samples_per_epoch", "2", "--batch_size", "2", "--workers", "0",
            "--device", "cpu",
        ]  # fmt: skip

    def copy(self, *names: str) -> Path:
        """A fresh folder with some of the sound files."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for name in names:
            source = self.sound / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, self.work / name)
        return self.work


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


def options(stage: Stage, generator: Generator) -> str:
    """A wrong value of an option of a script, on sound files."""
    folder = stage.copy("faces", "clips", "weights.safetensors", "picture.png")
    weights = ["--landmark_model_weights", str(folder / "weights.safetensors"), "--device", "cpu"]
    faces, clips, out = str(folder / "faces"), str(folder / "clips"), str(folder / "out")
    script, command, names = (
        (
            "train_LDEQ_WFLW",
            Stage.training_options(folder),
            ("--epochs", "--learning_rate", "--seed", "--weight_decay", "--image_size", "--splits", "--max_evals",
             "--save_minutes", "--gradient", "--preset", "--initial_weights", "--dataset_path"),
        ),
        (
            "test_LDEQ_WFLW",
            [*weights, "--dataset_path", faces, "--output_folder", out, "--workers", "0"],
            ("--batch_size", "--tol", "--max_evals", "--solver", "--raw_box", "--plot", "--precision", "--dataset_path",
             "--landmark_model_weights", "--stop_rule"),
        ),
        (
            "test_LDEQ_WFLW_V",
            [*weights, "--WFLW_V_dataset_path", clips, "--output_folder", out, "--WFLW_V_workers", "0"],
            ("--WFLW_V_batch_size", "--rwr_max_iters", "--rwr", "--WFLW_V_split", "--rwr_variant", "--crop",
             "--WFLW_V_dataset_path", "--tuning_ids"),
        ),
    )[int(generator.integers(3))]  # fmt: skip
    word = str(pick(generator, WORDS))
    return _run_script(folder, script, [*command, f"{pick(generator, names)}={word}"])


def results_folder(stage: Stage, generator: Generator) -> str:
    """An output folder that is an input, a file, or has folders in the places of files."""
    folder = stage.copy("faces", "clips", "weights.safetensors")
    weights = ["--landmark_model_weights", str(folder / "weights.safetensors"), "--device", "cpu"]
    out = folder / "out"
    kind = int(generator.integers(5))
    if kind == 0:
        out.write_text("a file of the user's")
    elif kind == 1:
        out.symlink_to(folder / str(pick(generator, ("faces", "clips"))))
    elif kind == 2:
        (out / str(pick(generator, ("results.json", "per_face.csv", "per_video.csv", "predictions.npz")))).mkdir(
            parents=True
        )
    elif kind == 3:
        out = folder / str(pick(generator, ("faces", "clips")))
    else:
        out = folder / ("n" * 300)
    if generator.random() < 0.5:
        command = [*weights, "--dataset_path", str(folder / "faces"), "--output_folder", str(out), "--workers", "0"]
        return _run_script(folder, "test_LDEQ_WFLW", command)
    command = [*weights, "--WFLW_V_dataset_path", str(folder / "clips"), "--output_folder", str(out)]
    return _run_script(folder, "test_LDEQ_WFLW_V", [*command, "--WFLW_V_workers", "0", "--save_video"])


def run_folder(stage: Stage, generator: Generator) -> str:
    """A file of a run of training, which is then resumed."""
    folder = stage.copy("faces", "run")
    path = folder / "run" / str(pick(generator, ("config.json", "state.pt", "log.csv", "weights.safetensors")))
    kind = int(generator.integers(4))
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.unlink()
        path.mkdir()
    elif path.suffix == ".json":
        path.write_text(damage_json(path.read_text(), generator))
    else:
        path.write_bytes(damage_bytes(path.read_bytes(), generator))
    return _run_script(folder, "train_LDEQ_WFLW", [*Stage.training_options(folder), "--resume"], may_change="run")


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


CLASSES: dict[str, tuple[Callable[[Stage, Generator], str], float]] = {
    "checkpoint": (checkpoint, 0.2),
    "face list": (face_list, 0.15),
    "clip": (clip, 0.15),
    "picture": (picture, 0.2),
    "boxes": (boxes, 0.1),
    "options": (options, 0.04),
    "results folder": (results_folder, 0.02),
    "run folder": (run_folder, 0.04),
    "arguments": (arguments, 0.1),
}
"""Each with its share of the cases."""


def _run_script(
    folder: Path, script: str, arguments: list[str], may_change: frozenset[str] | set[str] = frozenset()
) -> str:
    """Run a script in this process and hold it to the property."""
    before = _digests(folder)
    status, message = call_script(script, arguments)
    lines = [line for line in message.splitlines() if "error: " in line]
    if status not in (0, 1, 2) or (status == 2 and len(lines) != 1) or (status == 0 and lines):
        raise PropertyError(f"status {status}, {message[-500:]!r}: {script} {arguments}")
    after = _digests(folder)
    lost = [
        name for name, digest in before.items() if after.get(name) != digest and name.split("/")[0] not in may_change
    ]
    if lost:
        raise PropertyError(f"{lost} changed: {script} {arguments}")
    results = next(folder.glob("out/results.json"), None)
    if status == 0 and results is not None and results.is_file():
        json.loads(results.read_text(), parse_constant=_refuse_constant)
    return ("result", "rest evaluated", "refused")[status]


def _refuse_constant(name: str) -> None:
    raise PropertyError(f"results.json holds {name}")


def call_script(script: str, arguments: list[str]) -> tuple[int, str]:
    """Exit status and stderr of a script's main function."""
    module = __import__(script)
    messages = io.StringIO()
    before = sys.argv
    sys.argv = [f"{script}.py", *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(messages):
            status = run(module.main)
    finally:
        sys.argv = before
    return status, messages.getvalue()


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `PropertyError` inside the block after some seconds."""

    def end(*_: object) -> None:
        raise PropertyError(f"hangs: still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_case(stage: Stage, name: str, seed: int) -> tuple[str, str]:
    """One case: its outcome ("result", "refused", "rest evaluated", "traceback", "failure"), and what went wrong."""
    generator = np.random.default_rng((seed, list(CLASSES).index(name)))
    try:
        with time_limit(LONGEST), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return CLASSES[name][0](stage, generator), ""
    except PropertyError as failure:
        return "failure", str(failure)
    except Exception:
        return "traceback", traceback.format_exc()


def main() -> int:
    """Run a campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="of the whole campaign")
    parser.add_argument("--only", choices=CLASSES, help="cases of one class only")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    args = parser.parse_args()
    torch.set_num_threads(1)
    silence_opencv()
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        for name, (_, share) in CLASSES.items():
            if args.only not in (None, name):
                continue
            counts[name] = Counter()
            for number in range(
                args.first, args.first + (args.cases if args.only else max(1, round(share * args.cases)))
            ):
                outcome, message = try_case(stage, name, 1_000_000 * args.seed + number)
                counts[name][outcome] += 1
                if message:
                    print(f"{name}, case {number}: {outcome}: {message}", flush=True)
    for name, outcomes in counts.items():
        print(
            f"{name:15} {outcomes.total():6} cases: " + ", ".join(f"{key} {count}" for key, count in outcomes.items())
        )
    return int(any(outcomes["failure"] + outcomes["traceback"] for outcomes in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
