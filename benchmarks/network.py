"""What a network costs and how its fixed point converges: size, work and time; residual and NME over evaluations.

python benchmarks/network.py                                                  # the shipped weights and sample
python benchmarks/network.py --landmark_model_weights W --dataset_path D --output_folder results

Every budget is solved from zeros with the solver of the checkpoint and no tolerance; NME is that of all test faces.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    # A script's own folder comes first on the path, and there `solvers` would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from datasets.wflw import RAW_BOXES, WFLWCrops, load_wflw_test
from inference.engines import autocast
from inference.network import predict, resolve_device
from inference.options import add_machine_options, add_weights_option
from models import LDEQ, load_checkpoint
from utils.command_line import positive_integer, run
from utils.metrics import nme

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = (1, 2, 4, 8, 12, 16, 32)
TARGET_RESIDUAL = 5e-3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_weights_option(parser)
    parser.add_argument("--dataset_path", type=Path, default=ROOT / "datasets" / "sample")
    parser.add_argument("--raw_box", choices=RAW_BOXES, default="landmarks")
    parser.add_argument("--batch_size", type=positive_integer, default=32)
    add_machine_options(parser)
    parser.add_argument("--repeats", type=positive_integer, default=20, help="every time is the median of so many")
    parser.add_argument("--output_folder", type=Path, help="write convergence.csv there")
    args = parser.parse_args()

    model = load_checkpoint(args.landmark_model_weights, resolve_device(args.device)).to(
        memory_format=torch.channels_last
    )
    for name, value in measure_cost(model, args.precision, args.repeats).items():
        print(f"{name:30} {value:10.3f}")
    faces = load_wflw_test(args.dataset_path, args.raw_box).faces
    loader = DataLoader(WFLWCrops(faces, model.config.image_size), args.batch_size)
    batches = list(loader)
    table = measure_convergence(model, batches, args.precision)
    print(table.to_string(index=False, float_format="{:.4g}".format))
    if args.output_folder:
        args.output_folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(args.output_folder / "convergence.csv", index=False)


def measure_cost(model: LDEQ, precision: str, repeats: int) -> dict[str, float]:
    """Parameters, floating-point operations and times for one image."""
    device = next(model.parameters()).device
    size = model.config.image_size
    image = torch.randn(1, 3, size, size, device=device).to(memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(device, precision):
        embedded = model.embed(image)
        z = model.initial_state(embedded)
        return {
            "parameters, M": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
            "once per image, GFLOP": giga_operations(lambda: model.embed(image)),
            "each evaluation, GFLOP": giga_operations(lambda: model.cell(z, embedded)),
            "once per image, ms": milliseconds(lambda: model.embed(image), repeats, device),
            "each evaluation, ms": milliseconds(lambda: model.cell(z, embedded), repeats, device),
        }


def giga_operations(action: Callable[[], object]) -> float:
    """Floating-point operations of a call, a multiplication with its addition counted as two, in 1e9."""
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops() / 1e9


def milliseconds(action: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median time of a call after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def measure_convergence(model: LDEQ, batches: list[tuple[Tensor, Tensor]], precision: str) -> pd.DataFrame:
    """One row per budget: NME and residual of all faces."""
    truth = torch.cat([landmarks for _, landmarks in batches]).numpy()
    rows = []
    for budget in BUDGETS:
        solver = replace(model.config.solver, max_evals=budget, min_evals=1, tol=0.0)
        outputs = list(predict(model.with_solver(solver), (images for images, _ in batches), precision))
        keypoints = torch.cat([output.keypoints.cpu().double() for output in outputs]).numpy()
        residual = torch.cat([output.solution.residual.cpu() for output in outputs]).numpy()
        rows.append(
            {
                "evaluations": budget,
                "NME %": 100 * nme(keypoints, truth).mean(),
                "median residual": np.median(residual),
                "95th percentile": np.percentile(residual, 95),
                f"below {TARGET_RESIDUAL:g} %": 100 * np.mean(residual < TARGET_RESIDUAL),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(run(main))
