"""The cost of a network in every engine (work and time), and the convergence of its fixed point (residual and NME).

python benchmarks/network.py                                                  # the shipped weights and sample
python benchmarks/network.py --landmark_model_weights W --dataset_path D --output_folder results
python benchmarks/network.py --preset paper                                   # the costs of a size, random weights

Times are for one face: the part that is computed once per image, and one evaluation of the cell, in each available
engine, measured in turn. The reference is the network in PyTorch as in training, without folding. In the second table
every budget is solved from zeros with the checkpoint's solver and no tolerance; NME is that of all test faces.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # A script's own folder comes first on the path; `solvers` there would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.measuring import add_measuring_options, median_ratio, milliseconds_in_turn, report
from evaluation.settings import RAW_BOXES, SAMPLE
from inference.options import ENGINES, add_engine_options, add_machine_options, add_weights_option
from training.config import PRESETS
from utils.command_line import given_path, positive_integer, run, script_parser
from utils.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from inference.engines import Engine, EngineName, Precision
    from models import LDEQ

BUDGETS = (1, 2, 4, 8, 12, 16, 32)
TARGET_RESIDUAL = 5e-3
REFERENCE = "torch, not folded"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    add_weights_option(parser)
    parser.add_argument("--preset", choices=PRESETS, help="random weights of this size, and the first table only")
    parser.add_argument("--dataset_path", type=given_path, default=SAMPLE, help="WFLW (default: the sample)")
    parser.add_argument("--raw_box", choices=RAW_BOXES, help="box of raw faces for their crop (landmarks)")
    parser.add_argument("--batch_size", type=positive_integer, default=32, help="for the second table (%(default)s)")
    add_machine_options(parser)
    add_engine_options(parser)
    add_measuring_options(parser, repeats=20, table="engines.csv and convergence.csv")
    return parser.parse_args()


def main() -> None:
    """Measure, print the tables, and write them where asked."""
    args = parse_arguments()
    from torch.utils.data import DataLoader

    from datasets.wflw import WFLWCrops, load_wflw_test
    from inference.network import load_network, resolve_device, use_threads
    from models import LDEQ, preset
    from utils.landmark_groups import NUM_LANDMARKS

    use_threads(args.threads)
    device = resolve_device(args.device)
    if args.preset:
        model = LDEQ(preset(args.preset)).to(device).eval()
    else:
        model = load_network(args.landmark_model_weights, device, NUM_LANDMARKS, "sample").eval()
    report(measure_engines(model, args), device, args.output_folder and args.output_folder / "engines.csv")
    if args.preset:
        return
    faces = load_wflw_test(args.dataset_path, args.raw_box).faces
    batches = list(DataLoader(WFLWCrops(faces, model.config.image_size), args.batch_size))
    table = measure_convergence(model, batches, args.precision, args.engine)
    report(table, device, args.output_folder and args.output_folder / "convergence.csv")


def open_engines(model: LDEQ, args: argparse.Namespace) -> dict[str, Engine]:
    """The available engines, or the requested one, by name."""
    from inference.engines import open_engine

    engines = {}
    for name in ENGINES if args.engine == "auto" else (args.engine,):
        try:
            if name != "auto":
                engines[name] = open_engine(model, name, args.precision)
        except (OptionError, CheckpointError) as error:
            print(f"not measured: {error}", file=sys.stderr)
    return engines


def measure_engines(model: LDEQ, args: argparse.Namespace) -> pd.DataFrame:
    """One row per engine: work and parameters, and times for one image."""
    import pandas as pd
    import torch

    from inference.engines import autocast

    device, size = next(model.parameters()).device, model.config.image_size
    image = torch.randn(1, 3, size, size, device=device).to(memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(device, args.precision):
        embedded = model.embed(image)
        z = model.initial_state(embedded)
        work = {
            "parameters, M": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
            "once, GFLOP": giga_operations(lambda: model.embed(image)),
            "evaluation, GFLOP": giga_operations(lambda: model.cell(z, embedded)),
        }
        engines: dict[str, Any] = {REFERENCE: model, **open_engines(model, args)}
        once = {name: lambda engine=engine: engine.embed(image) for name, engine in engines.items()}
        evaluation = {name: lambda engine=engine: engine.cell(z, embedded) for name, engine in engines.items()}
        times = [milliseconds_in_turn(actions, args.repeats, device) for actions in (once, evaluation)]
    rows = []
    for name in engines:
        row = {"engine": name, **work}
        for title, measured in zip(("once", "evaluation"), times, strict=True):
            row[f"{title}, ms"] = median(measured[name])
            row[f"{title}, reference / it"] = median_ratio(measured[REFERENCE], measured[name])
        rows.append(row)
    return pd.DataFrame(rows)


def giga_operations(action: Callable[[], object]) -> float:
    """Floating-point operations of a call in 1e9; a multiplication with its addition counts as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops() / 1e9


def measure_convergence(
    model: LDEQ, batches: list[tuple[Tensor, Tensor]], precision: Precision, engine: EngineName
) -> pd.DataFrame:
    """One row per budget: NME and residual of all faces."""
    from dataclasses import replace

    import numpy as np
    import pandas as pd
    import torch

    from inference.network import predict
    from utils.metrics import nme

    truth = torch.cat([landmarks for _, landmarks in batches]).numpy()
    rows = []
    for budget in BUDGETS:
        solver = replace(model.config.solver, max_evals=budget, min_evals=1, tol=0.0)
        outputs = list(predict(model.with_solver(solver), (images for images, _ in batches), precision, engine))
        keypoints = torch.cat([output.keypoints.cpu().double() for output in outputs]).numpy()
        residual = torch.cat([output.solved.residual.cpu() for output in outputs]).numpy()
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
