"""A training run, from its data to its last epoch."""

import io
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from datasets.wflw import WFLWCrops, read_faces
from inference.engines import autocast
from inference.network import predict, resolve_device, switch_off_tf32
from models import LDEQ
from training.augmentation import Augmentation
from training.augmentation_config import AugmentationConfig
from training.config import RunOptions, TrainingConfig
from training.data import FaceList, TrainingFaces, TrainingSample, read_training_lists
from training.log import CURVES_FILE, LOG_FILE, append_row, plot_curves
from training.network import build_network, learning_rate_factor, number_of_step, parameter_groups
from training.sampling import PoseSampler, pose_weights, share_weights
from training.state import RUN_FILES, AveragedNetwork, Run, describe_run, open_run_folder
from training.step import TrainingStep, draw_plan, is_pair_step
from utils.errors import OptionError, UserError
from utils.files import locked_folder, protect_inputs, write_bytes
from utils.metrics import nme
from utils.processes import Process, initialise_worker, start_process
from utils.progress import progress_bar

BAD_BATCH_FILE = "bad_batch.pt"


@dataclass(frozen=True)
class Setting:
    """The parts of a run that do not change from step to step."""

    options: RunOptions
    config: TrainingConfig
    process: Process

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.options.output_folder

    @property
    def leads(self) -> bool:
        """Whether this process validates, logs and saves."""
        return self.process.rank == 0


def train(options: RunOptions, config: TrainingConfig) -> None:
    """Train to the last epoch, from the first or from the saved state.

    Raises:
        UserError: something that the options name cannot be used, or the loss is not finite.
    """
    setting = Setting(options, config, start_process(resolve_device(options.device)))
    process = setting.process
    if config.batch_size % process.world_size:
        raise OptionError(f"--batch_size {config.batch_size} is not divisible by the {process.world_size} processes")

    torch.manual_seed(config.seed)
    switch_off_tf32()
    model = build_network(options, config).to(process.device).to(memory_format=torch.channels_last)
    augmentation = AugmentationConfig.parse(options.augmentation)
    samples, sampler = make_samples(setting, Augmentation(augmentation, model.config.image_size))
    validation = WFLWCrops(read_faces(options.dataset_path, config.validation_split), model.config.image_size)

    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.learning_rate)
    training = Run(
        model=model,
        average=AveragedNetwork(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True),
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config)),
    )
    with ExitStack() as stack:
        if setting.leads:
            given = [path for path in (options.initial_weights, options.backbone_weights) if path is not None]
            outputs = [setting.folder / name for name in (*RUN_FILES, BAD_BATCH_FILE)]
            protect_inputs([setting.folder, *outputs], [options.dataset_path, *given])
            stack.enter_context(locked_folder(setting.folder))
            open_run_folder(setting.folder, training, describe_run(model, config, augmentation), options.resume)
        if options.resume:
            training.restore(setting.folder)
        run_epochs(training, samples, sampler, validation, setting)


def make_samples(setting: Setting, augmentation: Augmentation) -> tuple[TrainingFaces, PoseSampler]:
    """The faces to train on, and the order in which this process sees them."""
    config, process = setting.config, setting.process
    lists = [FaceList(setting.options.dataset_path, split) for split in config.splits]
    lists += [FaceList.parse(text) for text in config.more_faces]
    faces, label_weights, numbers = read_training_lists(lists)
    samples = TrainingFaces(faces, augmentation, label_weights, config.seed)
    sampler = PoseSampler(
        share_weights(pose_weights(samples.landmarks, config.pose_boost), numbers, [item.share for item in lists]),
        config.steps_per_epoch * config.batch_size,
        config.seed,
        process.rank,
        process.world_size,
        lambda epoch, position: 1 + is_pair_step(config, number_of_step(config, epoch, position // config.batch_size)),
    )
    return samples, sampler


def run_epochs(
    training: Run, samples: TrainingFaces, sampler: PoseSampler, validation: WFLWCrops, setting: Setting
) -> None:
    """Run all remaining epochs."""
    config, process = setting.config, setting.process
    step: nn.Module = TrainingStep(training.model, config)
    if setting.options.compile:
        training.model.backbone.compile()
        training.model.cell.compile()
    if process.world_size > 1:
        step = DistributedDataParallel(step)
    while training.epoch < config.epochs:
        sampler.set_epoch(training.epoch, start=training.step * config.batch_size)
        loader = DataLoader(
            samples,
            batch_size=config.batch_size // process.world_size,
            sampler=sampler,
            num_workers=setting.options.workers,
            worker_init_fn=initialise_worker,
            pin_memory=process.device.type == "cuda",
        )
        rate = train_epoch(training, step, loader, setting)
        if setting.leads:
            finish_epoch(training, validation, rate, setting)
        training.next_epoch()
        if setting.leads:
            training.save(setting.folder)


def train_epoch(training: Run, step: nn.Module, loader: DataLoader[TrainingSample], setting: Setting) -> float:
    """Run the rest of an epoch; returns images per second."""
    config, process = setting.config, setting.process
    training.model.train()
    started = saved = time.monotonic()
    first = training.step
    description = f"epoch {training.epoch + 1}/{config.epochs}"
    progress = progress_bar(config.steps_per_epoch, "step", description, setting.leads, loader, first)
    rate = math.nan
    with interruptible(process) as interrupted:
        for images, landmarks, weights, motion in progress:
            images = images.to(process.device, non_blocking=True)
            landmarks, weights, motion = (tensor.to(process.device) for tensor in (landmarks, weights, motion))
            plan = draw_plan(config, number_of_step(config, training.epoch, training.step), process.rank, len(images))
            with autocast(process.device, setting.options.precision):
                loss, keypoints = step(images, landmarks, weights, plan, motion)
            if not math.isfinite(loss.item()):
                raise bad_batch(training, setting.folder, images, landmarks, loss.item())
            training.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(training.model.parameters(), config.clip_norm)
            training.optimizer.step()
            training.schedule.step()
            training.average.update_parameters(training.model)

            training.count(loss.item(), mean_nme(keypoints, landmarks if landmarks.dim() == 3 else landmarks[:, 1]))
            rate = (training.step - first) * config.batch_size / (time.monotonic() - started)
            progress.set_postfix_str(
                f"loss {training.loss_sum / training.step:.3f}, NME {training.nme_sum / training.step:.2%}, "
                f"{rate:.1f} images/s"
            )
            due = time.monotonic() - saved > 60 * setting.options.save_minutes
            if setting.leads and (due or interrupted.is_set()):
                training.save(setting.folder)
                saved = time.monotonic()
            if interrupted.is_set():
                raise KeyboardInterrupt
    return rate


@contextmanager
def interruptible(process: Process) -> Iterator[threading.Event]:
    """Let Ctrl-C wait for the end of a step, so that the state can be saved; a second Ctrl-C does not wait.

    Yields:
        An event that Ctrl-C sets. With several processes it is never set: torchrun ends them.
    """
    interrupted = threading.Event()
    if process.world_size > 1 or threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def wait_for_the_step(*_: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = signal.signal(signal.SIGINT, wait_for_the_step)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def bad_batch(training: Run, folder: Path, images: Tensor, landmarks: Tensor, loss: float) -> UserError:
    """Save the batch whose loss is not finite; the error names the file."""
    content = io.BytesIO()
    torch.save({"images": images.cpu(), "landmarks": landmarks.cpu()}, content)
    write_bytes(folder / BAD_BATCH_FILE, content.getbuffer())
    return UserError(
        f"the loss is {loss} in epoch {training.epoch + 1}, step {training.step + 1}; the batch is in "
        f"{folder / BAD_BATCH_FILE}; try a lower --learning_rate, or look at the batch"
    )


def finish_epoch(training: Run, validation: WFLWCrops, rate: float, setting: Setting) -> None:
    """Validate, save the weights, log."""
    config, folder = setting.config, setting.folder
    validation_nme = validate(training.average.module, validation, setting)
    training.save_weights(folder)
    row = {
        "epoch": training.epoch,
        "samples": (training.epoch + 1) * config.steps_per_epoch * config.batch_size,
        "learning_rate": float(training.schedule.get_last_lr()[0]),
        "loss": training.loss_sum / training.step,
        "train_nme": 100 * training.nme_sum / training.step,
        "validation_nme": 100 * validation_nme,
        "images_per_second": rate,
        "minutes": training.minutes,
    }
    append_row(folder, row)
    plot_curves({folder.name: folder / LOG_FILE}, folder / CURVES_FILE)
    print(", ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


def validate(model: LDEQ, crops: WFLWCrops, setting: Setting) -> float:
    """Mean NME over a list of faces, as a fraction."""
    loader = DataLoader(
        crops,
        batch_size=setting.config.batch_size,
        num_workers=setting.options.workers,
        worker_init_fn=initialise_worker,
    )
    truth: list[Tensor] = []

    def images() -> Iterator[Tensor]:
        for batch, landmarks in loader:
            truth.append(landmarks)
            yield batch

    outputs = predict(model.eval(), images(), setting.options.precision)
    keypoints = [output.keypoints.cpu() for output in outputs]
    return mean_nme(torch.cat(keypoints), torch.cat(truth))


def mean_nme(keypoints: Tensor, landmarks: Tensor) -> float:
    """Mean NME of a batch, as a fraction."""
    return float(nme(keypoints.cpu().double().numpy(), landmarks.cpu().double().numpy()).mean())
