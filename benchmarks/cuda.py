"""The effect of compiling and CUDA graphs on a GPU: plain, compiled and graph in one run, in turn.

python benchmarks/cuda.py                                     # the shipped weights
python benchmarks/cuda.py --preset paper --batch_sizes 1 8 32 --output_folder results

    plain            the engine torch as it is, channels-last
    compiled         backbone and cell by torch.compile
    graph            captured in CUDA graphs (inference/cuda_graphs.py)
    compiled, graph  both

It measures a frame of RwR (backbone, step from the previous frame, landmarks), and a full solve from zeros with the
checkpoint's solver and a fixed budget. Images are on the GPU, and results stay there. Times are medians, and
`plain / it` is the speed-up. Without a CUDA device the benchmark says so and exits with 2.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # A script's own folder comes first on the path; `solvers` there would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.measuring import add_measuring_options, median_ratio, milliseconds_in_turn, report
from inference.options import PRECISIONS, RWR_VARIANTS, add_weights_option
from training.config import PRESETS
from utils.command_line import evaluation_budget, positive_integer, run, script_parser
from utils.errors import OptionError

if TYPE_CHECKING:
    import torch

    from inference.engines import Precision
    from inference.network import Network
    from models import LDEQ, LDEQOutput


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    add_weights_option(parser)
    parser.add_argument("--preset", choices=PRESETS, help="random weights of this size instead of the checkpoint")
    parser.add_argument("--batch_sizes", type=positive_integer, nargs="+", default=[1, 8, 32])
    parser.add_argument("--precisions", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    parser.add_argument("--rwr_variant", choices=RWR_VARIANTS, default="faithful")
    parser.add_argument("--max_evals", type=evaluation_budget, default=8, help="budget of the full solve (%(default)s)")
    add_measuring_options(parser, repeats=50, table="cuda.csv")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write it where asked."""
    args = parse_arguments()
    import pandas as pd
    import torch

    from inference.network import switch_off_tf32

    if not torch.cuda.is_available():
        raise OptionError("this benchmark needs a CUDA device, and there is none; run it on a machine with a GPU")
    switch_off_tf32()
    rows = []
    for precision in args.precisions:
        networks = make_networks(load(args), precision)
        for batch in args.batch_sizes:
            rows += measure(networks, precision, batch, args)
    report(pd.DataFrame(rows), torch.device("cuda"), args.output_folder and args.output_folder / "cuda.csv")


def load(args: argparse.Namespace) -> "LDEQ":
    """The network on the GPU, channels-last, with a fixed budget."""
    from dataclasses import replace

    import torch

    from models import LDEQ, load_checkpoint
    from models.config import PRESETS as CONFIGS

    model = LDEQ(CONFIGS[args.preset]).cuda() if args.preset else load_checkpoint(args.landmark_model_weights, "cuda")
    if model.config.mode == "explicit":
        raise OptionError(f"{args.landmark_model_weights}: an explicit network has no solver; give an implicit one")
    model = model.eval().to(memory_format=torch.channels_last)
    return model.with_solver(replace(model.config.solver, max_evals=args.max_evals, tol=0))


def make_networks(model: "LDEQ", precision: "Precision") -> "dict[str, Network]":
    """The same network in each of the four ways."""
    import copy

    from inference.cuda_graphs import CudaRecorder, GraphedNetwork
    from inference.engines import TorchEngine
    from inference.network import Network

    # A copy, as compiling changes the modules.
    compiled = TorchEngine(copy.deepcopy(model), precision)
    compiled.model.backbone.compile(dynamic=False)
    compiled.model.cell.compile(dynamic=False)
    recorder = CudaRecorder(compiled.device)
    networks = {"plain": Network(model, precision, "torch"), "compiled": Network(model, engine=compiled)}
    graphs = {"graph": "plain", "compiled, graph": "compiled"}
    return networks | {name: GraphedNetwork(networks[of], recorder) for name, of in graphs.items()}


def measure(
    networks: "dict[str, Network]", precision: str, batch: int, args: argparse.Namespace
) -> list[dict[str, object]]:
    """One row for each kind of work and each way."""
    import torch

    model = networks["plain"].model
    size, device = model.config.image_size, next(model.parameters()).device
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    rows: list[dict[str, object]] = []
    with torch.inference_mode():
        for work, make in (("frame of RwR", frame_of_rwr), ("full solve", full_solve)):
            actions = {name: make(network, images, args) for name, network in networks.items()}
            expected = actions["plain"]().keypoints
            differences = {name: (action().keypoints - expected).abs().max().item() for name, action in actions.items()}
            times = milliseconds_in_turn(actions, args.repeats, images.device)
            rows += [
                {
                    "precision": precision,
                    "batch": batch,
                    "work": work,
                    "way": name,
                    "ms": median(values),
                    "images a second": 1e3 * batch / median(values),
                    "plain / it": median_ratio(times["plain"], values),
                    "largest difference of keypoints": differences[name],
                }
                for name, values in times.items()
            ]
    return rows


def full_solve(network: "Network", images: "torch.Tensor", args: argparse.Namespace) -> "Callable[[], LDEQOutput]":
    """Backbone, solve from zeros, landmarks."""
    return partial(network, images)


def frame_of_rwr(network: "Network", images: "torch.Tensor", args: argparse.Namespace) -> "Callable[[], LDEQOutput]":
    """Backbone, step of RwR from a previous frame, landmarks."""
    import torch

    from inference.optical_flow import FLOW_SIZE
    from models.rwr import VARIANTS
    from solvers import FixedPointConfig

    rwr = VARIANTS[args.rwr_variant]
    recurrent = network.with_solver(FixedPointConfig(max_evals=rwr.max_iters, tol=0), rwr.final_evaluation)
    before = recurrent(images)
    moved = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    flow = torch.zeros(len(images), 4, FLOW_SIZE, FLOW_SIZE, device=images.device)

    def step() -> "LDEQOutput":
        return recurrent.advance(rwr, recurrent.embed(images), before.z_star, before.keypoints, moved, flow)

    return step


if __name__ == "__main__":
    sys.exit(run(main))
