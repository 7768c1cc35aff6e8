"""Peak memory of a training step against the evaluations of its solve, for every rule of differentiation.

python benchmarks/training_memory.py                                     # the mini network on the CPU
python benchmarks/training_memory.py --preset paper --device cuda --batch_size 8

The step is that of train_LDEQ_WFLW.py; with "jfb" the evaluations before the tracked one are plain. Every number comes
from a process of its own. On the CPU it is the growth of the process's peak resident memory from just before the first
step; on CUDA the peak of the allocator.
"""

import argparse
import multiprocessing
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

if __name__ == "__main__":
    # A script's own folder comes first on the path, and there `solvers` would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import pandas as pd
import torch

from inference.network import resolve_device
from inference.options import DEVICES
from models import LDEQ
from models.config import PRESETS, preset
from models.deq import GradientConfig, GradientRule
from training.config import TrainingConfig
from training.step import StepPlan, TrainingStep
from utils.command_line import positive_integer, run

BUDGETS = (4, 32)
STEPS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="mini")
    parser.add_argument("--batch_size", type=positive_integer, default=4)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    args = parser.parse_args()
    device = resolve_device(args.device)
    # glibc then returns every tensor's memory when it is freed, so that the peak is that of live tensors.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    rows = []
    for rule in get_args(GradientRule):
        peaks = {evals: in_new_process(args.preset, rule, evals, args.batch_size, device) for evals in BUDGETS}
        few, many = peaks.values()
        columns = {f"{evals} evaluations, MiB": peak / 2**20 for evals, peak in peaks.items()}
        rows.append({"gradient": rule, **columns, "difference, %": 100 * (many / few - 1)})
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.1f}".format))


def in_new_process(preset_name: str, rule: GradientRule, evals: int, batch_size: int, device: torch.device) -> int:
    """`peak_memory` without the memory of an earlier measurement."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_memory, (preset_name, rule, evals, batch_size, device))


def peak_memory(preset_name: str, rule: GradientRule, evals: int, batch_size: int, device: torch.device) -> int:
    """Bytes that a few training steps need at most."""
    config = preset(preset_name, gradient=GradientConfig(rule=rule))
    model = LDEQ(replace(config, solver=replace(config.solver, max_evals=evals, tol=0.0))).to(device)
    step = TrainingStep(model, TrainingConfig(gradient=rule))
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(batch_size, 3, config.image_size, config.image_size, device=device)
    landmarks = torch.rand(batch_size, config.landmarks, 2, device=device)
    weights = torch.ones(batch_size, device=device)
    before = process_peak()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss, _ = step(images, landmarks, weights, StepPlan(depth=evals - 1, warp=None))
        loss.backward()
        optimizer.step()
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process_peak() - before


def process_peak() -> int:
    """Peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    sys.exit(run(main))
