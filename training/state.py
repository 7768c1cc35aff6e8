"""A run: what training changes, and how it is kept on disk.

Files are written aside and then renamed, so that the last good ones survive a full disk or a kill.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from models import LDEQ, save_checkpoint
from training.augmentation_config import AugmentationConfig
from training.config import TrainingConfig
from utils.errors import OutputError

STATE_FILE = "state.pt"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"


@dataclass
class Run:
    """Everything that a step changes.

    Attributes:
        model: the network in training.
        average: the moving average of its weights.
        optimizer: of the model's weights.
        schedule: of the learning rate.
        epoch: the current epoch, from 0.
        step: steps done in it.
        loss_sum: sum of their losses.
        nme_sum: sum of their mean NMEs, as fractions.
        seconds: time spent before this process.
    """

    model: LDEQ
    average: AveragedModel
    optimizer: Optimizer
    schedule: LRScheduler
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    nme_sum: float = 0.0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def minutes(self) -> float:
        """Time spent, over all processes that worked on the run one after the other."""
        return (self.seconds + time.monotonic() - self.started) / 60

    def count(self, loss: float, nme: float) -> None:
        """Add a step to the sums of the epoch."""
        self.step += 1
        self.loss_sum += loss
        self.nme_sum += nme

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch += 1
        self.step = 0
        self.loss_sum = self.nme_sum = 0.0

    def save(self, folder: Path) -> None:
        """Write what `restore` reads.

        Raises:
            OutputError: it cannot be written; an older state is as it was.
        """
        state = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimizer", "schedule")}
        state |= {name: getattr(self, name) for name in ("epoch", "step", "loss_sum", "nme_sum")}
        state["seconds"] = 60 * self.minutes
        aside = folder / (STATE_FILE + ".part")
        try:
            torch.save(state, aside)
            aside.replace(folder / STATE_FILE)
        except (OSError, RuntimeError) as error:
            raise _not_written(folder / STATE_FILE, error) from error
        finally:
            aside.unlink(missing_ok=True)

    def save_weights(self, folder: Path) -> None:
        """Write the moving average of the weights as a checkpoint.

        Raises:
            OutputError: it cannot be written; an older file is as it was.
        """
        try:
            save_checkpoint(self.average.module, folder / WEIGHTS_FILE)
        except OSError as error:
            raise _not_written(folder / WEIGHTS_FILE, error) from error

    def restore(self, folder: Path) -> None:
        """Go back to the last saved state.

        Raises:
            OutputError: there is none, or it does not read.
        """
        path = folder / STATE_FILE
        if not path.is_file():
            raise OutputError(f"{path}: nothing to resume; start without --resume")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # on a damaged file the unpickler raises nearly anything
            raise OutputError(f"{path}: damaged ({error}); remove the folder and start again") from error
        for name in ("model", "average", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("epoch", "step", "loss_sum", "nme_sum", "seconds"):
            setattr(self, name, state[name])


def _not_written(path: Path, error: Exception) -> OutputError:
    return OutputError(f"{path}: could not be written ({error}); free some space and go on with --resume")


def describe_run(model: LDEQ, config: TrainingConfig, augmentation: AugmentationConfig) -> dict[str, dict[str, Any]]:
    """Everything that decides the outcome, as JSON has it."""
    parts = {"network": model.config.to_dict(), "training": asdict(config), "augmentation": asdict(augmentation)}
    return json.loads(json.dumps(parts))


def open_run_folder(folder: Path, description: dict[str, dict[str, Any]], resume: bool) -> None:
    """Make a new run folder with its configuration, or check that an old one belongs to the same run.

    Raises:
        OutputError: the folder cannot be written, holds a run already, or holds one with other options.
    """
    path = folder / CONFIG_FILE
    if resume:
        _check_same_run(path, description)
        return
    if path.exists():
        raise OutputError(f"{folder}: holds a run already; go on with it (--resume) or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: could not be written ({error}); choose another --output_folder") from error


def _check_same_run(path: Path, description: dict[str, dict[str, Any]]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: nothing to resume ({error}); start without --resume") from error
    for part, values in description.items():
        for name, value in values.items():
            old = before.get(part, {}).get(name)
            if old != value:
                raise OutputError(
                    f"{path}: this run began with {part} option {name} = {old!r}, not {value!r}; "
                    "resume with the same options, or choose another --output_folder"
                )
