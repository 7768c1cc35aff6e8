"""What the cases of the fuzz begin with, and the error of one that fails."""

import contextlib
import io
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from small_networks import small_model
from synthetic_clips import write_clip, write_split
from synthetic_faces import make_face, to_text, write_image

from datasets.wflw import SPLITS
from models import save_checkpoint
from solvers import FixedPointConfig
from utils.command_line import run


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
