"""The state of a run, and its files."""

import io
import json
import time
import warnings
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
from training.log import CURVES_FILE, LOG_FILE, check_log
from utils.errors import InputError, OutputError
from utils.files import write_bytes, write_json
from utils.reading import cannot_read, check_archive, check_file, read_text

STATE_FILE = "state.pt"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
RUN_FILES = (STATE_FILE, CONFIG_FILE, WEIGHTS_FILE, LOG_FILE, CURVES_FILE)

MODULES = ("model", "average", "optimizer", "schedule")
COUNTERS = ("epoch", "step", "loss_sum", "nme_sum")


class AveragedNetwork(AveragedModel):
    """The moving average of the weights of a network."""

    module: LDEQ


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
    average: AveragedNetwork
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
        """Write the state for `restore`.

        Raises:
            OutputError: If it cannot be written; an older state is intact.
        """
        state = {name: getattr(self, name).state_dict() for name in MODULES}
        state |= {name: getattr(self, name) for name in COUNTERS}
        state["seconds"] = 60 * self.minutes
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(folder / STATE_FILE, content.getbuffer(), durable=True)

    def save_weights(self, folder: Path) -> None:
        """Write the moving average of the weights as a checkpoint.

        Raises:
            OutputError: If it cannot be written; an older file is intact.
        """
        save_checkpoint(self.average.module, folder / WEIGHTS_FILE)

    def restore(self, folder: Path) -> None:
        """Go back to the last saved state.

        Raises:
            OutputError: there is none, it does not read, or it does not fit the log.
        """
        path = folder / STATE_FILE
        state = _read_state(path)
        try:
            for name in MODULES:
                getattr(self, name).load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{path}: does not fit the run ({_first_line(error)}); choose another --output_folder"
            ) from error
        check_log(folder, int(state["epoch"]))
        for name in (*COUNTERS, "seconds"):
            setattr(self, name, state[name])


def _read_state(path: Path) -> dict[str, Any]:
    advice = "choose another --output_folder and start again"
    foreign = OutputError(f"{path}: damaged, or not the state of a run of this project; {advice}")
    try:
        check_file(path)
        check_archive(path)
    except InputError as error:
        raise OutputError(f"{error}, or {advice}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise OutputError(f"{cannot_read(path, error)}, or {advice}") from error
    except Exception as error:  # the unpickler raises many kinds of error, and gives long advice
        raise foreign from error
    counters = (*COUNTERS, "seconds")
    whole = isinstance(state, dict) and state.keys() >= {*MODULES, *counters}
    if not whole or not all(isinstance(state[name], int | float) for name in counters):
        raise foreign
    return state


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def describe_run(model: LDEQ, config: TrainingConfig, augmentation: AugmentationConfig) -> dict[str, dict[str, Any]]:
    """Everything that changes the result, as plain values for JSON."""
    parts = {"network": model.config.to_dict(), "training": asdict(config), "augmentation": asdict(augmentation)}
    return json.loads(json.dumps(parts))


def open_run_folder(folder: Path, run: Run, description: dict[str, dict[str, Any]], resume: bool) -> None:
    """Start a run with its first state and its configuration, or check that the folder belongs to the same run.

    The state is written first: from then on the run can be resumed, whenever it is killed.

    Raises:
        OutputError: the folder cannot be written, holds a run already, or holds one with other options.
    """
    there = [name for name in RUN_FILES if (folder / name).exists()]
    if resume:
        if STATE_FILE not in there:
            raise OutputError(
                f"{folder / STATE_FILE}: no such file, nothing to resume; start without --resume in an empty folder"
            )
        if CONFIG_FILE in there:
            _check_same_run(folder / CONFIG_FILE, description)
            return
        if there != [STATE_FILE]:
            raise OutputError(
                f"{folder / CONFIG_FILE}: no such file, so the options of the run are unknown; choose another "
                "--output_folder"
            )
    elif STATE_FILE in there:
        raise OutputError(f"{folder}: already holds a run; resume it (--resume) or choose another folder")
    elif there:
        raise OutputError(
            f"{folder}: holds {', '.join(there)} of a run, but no state to resume; choose another --output_folder"
        )
    else:
        run.save(folder)
    write_json(folder / CONFIG_FILE, description)


def _check_same_run(path: Path, description: dict[str, dict[str, Any]]) -> None:
    try:
        before = json.loads(read_text(path))
    except (InputError, ValueError, RecursionError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); choose another --output_folder") from error
    for part, values in description.items():
        old_values = before.get(part) if isinstance(before, dict) else None
        if not isinstance(old_values, dict):
            raise OutputError(f"{path}: not the configuration of a run; choose another --output_folder")
        for name, value in values.items():
            old = old_values.get(name)
            if old != value:
                raise OutputError(
                    f"{path}: this run began with {part} option {name} = {old!r}, not {value!r}; "
                    "resume with the same options, or choose another --output_folder"
                )
