"""Peak memory of a training step against the evaluations of its solve, for every rule of differentiation.

python benchmarks/training_memory.py                                     # the mini network on the CPU
python benchmarks/training_memory.py --preset paper --device cuda --batch_size 8

The step is that of train_LDEQ_WFLW.py; with "jfb" the evaluations before the tracked one are plain. Every number comes
from a separate process. On the CPU it is the growth of the process's peak resident memory from just before the first
step; on CUDA it is the peak of the allocator.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # A script's own folder comes first on the path; `solvers` there would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.measuring import in_new_process, peak_growth, report
from inference.options import DEVICES
from training.config import PRESETS
from utils.command_line import given_path, positive_integer, run, script_parser

if TYPE_CHECKING:
    import torch

    from models.deq import GradientRule

BUDGETS = (4, 32)
STEPS = 3


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="mini")
    parser.add_argument("--batch_size", type=positive_integer, default=4)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--output_folder", type=given_path, help="folder for training_memory.csv")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write it where asked."""
    args = parse_arguments()
    from typing import get_args

    import pandas as pd

    from inference.network import resolve_device
    from models.deq import GradientRule

    device = resolve_device(args.device)
    rows = []
    for rule in get_args(GradientRule):
        peaks = {
            evals: in_new_process(peak_memory, args.preset, rule, evals, args.batch_size, device) for evals in BUDGETS
        }
        few, many = peaks.values()
        columns = {f"{evals} evaluations, MiB": peak / 2**20 for evals, peak in peaks.items()}
        rows.append({"gradient": rule, **columns, "difference, %": 100 * (many / few - 1)})
    report(pd.DataFrame(rows), device, args.output_folder and args.output_folder / "training_memory.csv")


def peak_memory(preset_name: str, rule: GradientRule, evals: int, batch_size: int, device: torch.device) -> int:
    """The most bytes that a few training steps need."""
    from dataclasses import replace

    import torch

    from models import LDEQ
    from models.config import preset
    from models.deq import GradientConfig
    from training.config import TrainingConfig
    from training.step import StepPlan, TrainingStep

    config = preset(preset_name, gradient=GradientConfig(rule=rule))
    model = LDEQ(replace(config, solver=replace(config.solver, max_evals=evals, tol=0.0))).to(device)
    step = TrainingStep(model, TrainingConfig(gradient=rule))
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(batch_size, 3, config.image_size, config.image_size, device=device)
    landmarks = torch.rand(batch_size, config.landmarks, 2, device=device)
    weights = torch.ones(batch_size, device=device)

    def train() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss, _ = step(images, landmarks, weights, StepPlan(depth=evals - 1, warp=None))
            loss.backward()
            optimizer.step()

    return peak_growth(train, device)


if __name__ == "__main__":
    sys.exit(run(main))
