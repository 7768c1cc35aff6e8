"""Train LDEQ on WFLW, in either layout, or on faces in its format.

python train_LDEQ_WFLW.py --preset mini --dataset_path /path/to/WFLW --output_folder runs/mini
python train_LDEQ_WFLW.py --preset mini --dataset_path /path/to/WFLW --output_folder runs/mini --resume
torchrun --nproc_per_node=8 train_LDEQ_WFLW.py --preset paper --dataset_path /path/to/WFLW --output_folder runs/paper \\
    --backbone_weights hrnetv2_w18_imagenet_pretrained.pth --precision bf16

The run folder gets weights.safetensors (the moving average of the weights, after every epoch), config.json, log.csv,
curves.png, and state.pt, from which --resume goes on as if nothing had happened.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.wflw import WFLWCrops, read_faces
from inference.network import autocast, predict, resolve_device
from inference.options import add_machine_options
from models import LDEQ, load_checkpoint
from models.backbones.hrnet import load_backbone_weights
from models.config import PRESETS as NETWORKS
from models.config import Backbone, Gate
from models.deq import GradientConfig
from training.augmentation import Augmentation
from training.augmentation_config import AugmentationConfig
from training.config import PRESETS, TrainingConfig, add_options, from_options
from training.data import FaceList, TrainingFaces, read_training_lists
from training.log import CURVES_FILE, LOG_FILE, append_row, plot_curves
from training.sampling import PoseSampler, pose_weights, share_weights
from training.state import Run, describe_run, open_run_folder
from training.step import TrainingStep, draw_plan, is_pair_step
from utils.command_line import non_negative_integer, positive_integer, run
from utils.errors import CheckpointError, UserError
from utils.metrics import nme
from utils.processes import Process, initialise_worker, start_process

BAD_BATCH_FILE = "bad_batch.pt"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_path", type=Path, required=True, help="folder of WFLW, in either layout")
    parser.add_argument("--output_folder", type=Path, required=True, help="the run folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output_folder")
    parser.add_argument("--preset", choices=PRESETS, default="mini", help="network, and options that are not named")
    parser.add_argument("--backbone", choices=get_args(Backbone), help="default: the preset's")
    parser.add_argument("--image_size", type=int, help="side of the network's input, a multiple of 64")
    parser.add_argument("--gate", choices=get_args(Gate), help="how much of its new heatmaps the cell takes")
    parser.add_argument("--gate_start", type=float, help="that share, or where a learned gate starts")
    parser.add_argument("--max_evals", type=positive_integer, help="budget of the network's solver")
    parser.add_argument("--backbone_weights", type=Path, help="ImageNet weights of a published HRNet")
    parser.add_argument(
        "--initial_weights", type=Path, help="checkpoint to start from; its image size may differ, its gate be absent"
    )
    parser.add_argument("--initial_part", choices=("all", "backbone"), default="all", help="what to take from it")
    parser.add_argument("--workers", type=non_negative_integer, default=2, help="processes that read and augment faces")
    add_machine_options(parser)
    parser.add_argument("--save_minutes", type=float, default=10, help="save the state this often within an epoch")
    parser.add_argument(
        "--augmentation",
        nargs="+",
        default=(),
        metavar="NAME=VALUE",
        help="strengths that differ from training/augmentation_config.py; a range is LOW,HIGH",
    )
    add_options(parser)
    return parser.parse_args()


def main() -> None:
    """Train from the first epoch, or from where the run stopped, to the last."""
    args = parse_arguments()
    config = from_options(args)
    process = start_process(resolve_device(args.device))
    if config.batch_size % process.world_size:
        raise ValueError(f"--batch_size {config.batch_size} is not divisible by the {process.world_size} processes")

    torch.manual_seed(config.seed)
    model = build_network(args, config).to(process.device, memory_format=torch.channels_last)
    augmentation = AugmentationConfig.parse(args.augmentation)
    lists = [FaceList(args.dataset_path, split) for split in config.splits]
    lists += [FaceList.parse(text) for text in config.more_faces]
    faces, label_weights, numbers = read_training_lists(lists)
    samples = TrainingFaces(faces, Augmentation(augmentation, model.config.image_size), label_weights, config.seed)
    sampler = PoseSampler(
        share_weights(pose_weights(samples.landmarks, config.pose_boost), numbers, [item.share for item in lists]),
        config.steps_per_epoch * config.batch_size,
        config.seed,
        process.rank,
        process.world_size,
        lambda epoch, position: 1 + is_pair_step(config, number_of_step(config, epoch, position // config.batch_size)),
    )
    validation = WFLWCrops(read_faces(args.dataset_path, config.validation_split), model.config.image_size)

    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.learning_rate)
    training = Run(
        model=model,
        average=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True),
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config)),
    )
    if process.rank == 0:
        open_run_folder(args.output_folder, describe_run(model, config, augmentation), args.resume)
    if args.resume:
        training.restore(args.output_folder)

    step: nn.Module = TrainingStep(model, config)
    if process.world_size > 1:
        step = DistributedDataParallel(step)
    while training.epoch < config.epochs:
        sampler.set_epoch(training.epoch, start=training.step * config.batch_size)
        loader = DataLoader(
            samples,
            batch_size=config.batch_size // process.world_size,
            sampler=sampler,
            num_workers=args.workers,
            worker_init_fn=initialise_worker,
            pin_memory=process.device.type == "cuda",
        )
        rate = train_epoch(training, step, loader, config, args, process)
        if process.rank == 0:
            finish_epoch(training, validation, rate, config, args)
        training.next_epoch()
        if process.rank == 0:
            training.save(args.output_folder)


def build_network(args: argparse.Namespace, config: TrainingConfig) -> LDEQ:
    """The preset's network with the named changes, its weights fresh or from files."""
    network = NETWORKS[args.preset]
    names = ("backbone", "image_size", "gate", "gate_start")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    solver = replace(network.solver, max_evals=args.max_evals) if args.max_evals else network.solver
    gradient = GradientConfig(rule=config.gradient, phantom_steps=config.phantom_steps)
    model = LDEQ(replace(network, solver=solver, gradient=gradient, **changes))
    if args.backbone_weights:
        load_backbone_weights(model.backbone, args.backbone_weights)
    if args.initial_weights:
        try:
            load_part(model, load_checkpoint(args.initial_weights), args.initial_part)
        except RuntimeError as error:
            raise CheckpointError(f"{args.initial_weights}: another network than the run's ({error})") from error
    return model


def load_part(model: LDEQ, source: LDEQ, part: str) -> None:
    """Copy the weights of another network, or those of its backbone ("backbone"); a gate it lacks keeps its own.

    Raises:
        RuntimeError: the other weights do not fit.
    """
    weights = source.state_dict()
    if part == "backbone":
        weights = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    kept = model.state_dict()
    fresh = ("cell.",) if part == "backbone" else ("cell.gate.",)
    weights |= {name: value for name, value in kept.items() if name.startswith(fresh) and name not in weights}
    model.load_state_dict(weights)


def parameter_groups(model: LDEQ, weight_decay: float) -> list[dict]:
    """Weight decay acts on weights, not on biases and norms."""
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine from 1 to `final_learning_rate`."""
    total = config.epochs * config.steps_per_epoch
    warm_up = max(1, round(config.warm_up * total))
    if step < warm_up:
        return (step + 1) / warm_up
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))
    return config.final_learning_rate + (1 - config.final_learning_rate) * cosine


def number_of_step(config: TrainingConfig, epoch: int, step: int) -> int:
    """Number of a step of an epoch in the whole run, from 0."""
    return epoch * config.steps_per_epoch + step


def train_epoch(
    training: Run,
    step: nn.Module,
    loader: DataLoader,
    config: TrainingConfig,
    args: argparse.Namespace,
    process: Process,
) -> float:
    """The rest of an epoch; returns images per second."""
    training.model.train()
    started = saved = time.monotonic()
    first = training.step
    progress = tqdm(
        loader,
        desc=f"epoch {training.epoch + 1}/{config.epochs}",
        initial=first,
        total=config.steps_per_epoch,
        disable=process.rank > 0,
        mininterval=1,
    )
    rate = math.nan
    for images, landmarks, weights, motion in progress:
        images = images.to(process.device, non_blocking=True)
        landmarks, weights, motion = (tensor.to(process.device) for tensor in (landmarks, weights, motion))
        number = number_of_step(config, training.epoch, training.step)
        plan = draw_plan(config, number, process.rank, len(images))
        with autocast(process.device, args.precision):
            loss, keypoints = step(images, landmarks, weights, plan, motion)
        if not math.isfinite(loss.item()):
            raise bad_batch(training, args.output_folder, images, landmarks, loss.item())
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
        if process.rank == 0 and time.monotonic() - saved > 60 * args.save_minutes:
            training.save(args.output_folder)
            saved = time.monotonic()
    return rate


def bad_batch(training: Run, folder: Path, images: Tensor, landmarks: Tensor, loss: float) -> UserError:
    """Keep the batch whose loss is not finite, and say where."""
    torch.save({"images": images.cpu(), "landmarks": landmarks.cpu()}, folder / BAD_BATCH_FILE)
    return UserError(
        f"the loss is {loss} in epoch {training.epoch + 1}, step {training.step + 1}; the batch is in "
        f"{folder / BAD_BATCH_FILE}; try a lower --learning_rate, or look at the batch"
    )


def finish_epoch(
    training: Run, validation: WFLWCrops, rate: float, config: TrainingConfig, args: argparse.Namespace
) -> None:
    """Validate, save the weights, log."""
    validation_nme = validate(training.average.module, validation, config.batch_size, args)
    training.save_weights(args.output_folder)
    row = {
        "epoch": training.epoch,
        "samples": (training.epoch + 1) * config.steps_per_epoch * config.batch_size,
        "learning_rate": training.schedule.get_last_lr()[0],
        "loss": training.loss_sum / training.step,
        "train_nme": 100 * training.nme_sum / training.step,
        "validation_nme": 100 * validation_nme,
        "images_per_second": rate,
        "minutes": training.minutes,
    }
    append_row(args.output_folder, row)
    plot_curves({args.output_folder.name: args.output_folder / LOG_FILE}, args.output_folder / CURVES_FILE)
    print(", ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


def validate(model: LDEQ, crops: WFLWCrops, batch_size: int, args: argparse.Namespace) -> float:
    """Mean NME over a list of faces, as a fraction."""
    loader = DataLoader(crops, batch_size=batch_size, num_workers=args.workers, worker_init_fn=initialise_worker)
    truth: list[Tensor] = []

    def images() -> Iterator[Tensor]:
        for batch, landmarks in loader:
            truth.append(landmarks)
            yield batch

    keypoints = [output.keypoints.cpu() for output in predict(model.eval(), images(), args.precision)]
    return mean_nme(torch.cat(keypoints), torch.cat(truth))


def mean_nme(keypoints: Tensor, landmarks: Tensor) -> float:
    """Mean NME of a batch, as a fraction."""
    return float(nme(keypoints.cpu().double().numpy(), landmarks.cpu().double().numpy()).mean())


if __name__ == "__main__":
    sys.exit(run(main))
