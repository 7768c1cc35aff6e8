"""The effect of compaction: computed over used cell evaluations, time and peak memory, with and without it.

python benchmarks/compaction.py                                                  # the shipped weights and sample
python benchmarks/compaction.py --dataset_path datasets/WFLW --batch_size 32 --output_folder results

The same faces are solved with and without compaction, in turn. Times are medians of the network's forward pass over all
batches. CPU time is the work of the processors, whatever the other load of the machine. Memory is the growth of the
peak resident memory of a separate process over the first batch, or on CUDA the peak of the allocator. The rows of batch
1 solve a few faces one by one. There is nothing to save there, so they show the cost of compaction.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if __name__ == "__main__":
    # A script's own folder comes first on the path; `solvers` there would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.measuring import add_measuring_options, in_new_process, median_ratio, peak_growth, report
from evaluation.settings import RAW_BOXES, SAMPLE
from inference.options import DEVICES, SOLVERS, add_weights_option
from utils.command_line import given_path, positive_integer, run, script_parser

if TYPE_CHECKING:
    from torch import Tensor

    from models import LDEQ

VARIANTS = (False, True)
FACES_ONE_BY_ONE = 12


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    add_weights_option(parser)
    parser.add_argument("--dataset_path", type=given_path, default=SAMPLE, help="WFLW (default: the sample)")
    parser.add_argument("--raw_box", choices=RAW_BOXES, help="box of raw faces for their crop (landmarks)")
    parser.add_argument("--solver", choices=SOLVERS, help="solver to use instead of the checkpoint's")
    parser.add_argument("--batch_size", type=positive_integer, default=32, help="(%(default)s)")
    parser.add_argument("--faces", type=positive_integer, default=96, help="most faces to solve (%(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    add_measuring_options(parser, repeats=5, table="compaction.csv")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write it where asked."""
    args = parse_arguments()
    import pandas as pd

    from inference.network import resolve_device

    rows = []
    sizes = sorted({args.batch_size, 1}, reverse=True)
    # First, as a new process counts the peak of the one that starts it for its own.
    peaks = {size: [in_new_process(peak_memory, args, size, compact) for compact in VARIANTS] for size in sizes}
    for size in sizes:
        measured = measure(*prepare(args, size), args.repeats)
        for compact, row, peak in zip(VARIANTS, measured, peaks[size], strict=True):
            rows.append({"batch": size, "compaction": compact, **row, "peak memory, MiB": peak / 2**20})
    path = args.output_folder and args.output_folder / "compaction.csv"
    report(pd.DataFrame(rows), resolve_device(args.device), path)


def prepare(args: argparse.Namespace, batch_size: int) -> tuple[LDEQ, list[Tensor]]:
    """The network, and its input in batches."""
    import torch
    from torch.utils.data import DataLoader

    from datasets.wflw import WFLWCrops, load_wflw_test
    from inference.network import load_network, resolve_device
    from utils.landmark_groups import NUM_LANDMARKS

    device = resolve_device(args.device)
    model = load_network(args.landmark_model_weights, device, NUM_LANDMARKS, "sample", args.solver)
    faces = load_wflw_test(args.dataset_path, args.raw_box).faces[
        : args.faces if batch_size > 1 else min(args.faces, FACES_ONE_BY_ONE)
    ]
    loader = DataLoader(WFLWCrops(faces, model.config.image_size), batch_size)
    return model, [images.to(device, memory_format=torch.channels_last) for images, _ in loader]


def with_compaction(model: LDEQ, compact: bool) -> LDEQ:
    """The same network with another solve."""
    return model.with_solver(replace(model.config.solver, compact=compact))


class Pass(NamedTuple):
    """One pass over all faces: seconds, samples that the cell computed, evaluations that the solver used, keypoints."""

    seconds: float
    cpu_seconds: float
    computed: int
    used: int
    keypoints: Tensor


def forward(model: LDEQ, batches: Sequence[Tensor]) -> Pass:
    """Solve all batches, and count. The one evaluation after a solve that only plain iteration needs is not counted."""
    import torch

    from inference.network import predict

    sizes: list[int] = []
    hook = model.cell.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    started, cpu_started = time.perf_counter(), time.process_time()
    outputs = list(predict(model, batches, "fp32", "torch"))
    used = sum(int(output.solved.evals.sum()) for output in outputs)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    hook.remove()
    after = sum(len(output.keypoints) for output in outputs if output.solved.f_z is None)
    keypoints = torch.cat([output.keypoints.cpu() for output in outputs])
    return Pass(seconds, cpu_seconds, sum(sizes) - after * model.config.final_evaluation, used, keypoints)


def measure(model: LDEQ, batches: Sequence[Tensor], repeats: int) -> list[dict[str, float]]:
    """A row without and a row with compaction."""
    models = [with_compaction(model, compact) for compact in VARIANTS]
    for variant in models:
        forward(variant, batches[:1])
    # In turn, so that other load on the machine affects both.
    passes = [[forward(variant, batches) for variant in models] for _ in range(repeats)]
    rows = []
    for place in range(2):
        runs = [both[place] for both in passes]
        rows.append(
            {
                "computed": runs[0].computed,
                "used": runs[0].used,
                "computed / used": runs[0].computed / runs[0].used,
                "time, s": median(one.seconds for one in runs),
                "CPU time, s": median(one.cpu_seconds for one in runs),
                "time / without": median_ratio(
                    [one.seconds for one in runs], [without.seconds for without, _ in passes]
                ),
                "largest difference of keypoints": (runs[0].keypoints - passes[0][0].keypoints).abs().max().item(),
            }
        )
    return rows


def peak_memory(args: argparse.Namespace, batch_size: int, compact: bool) -> int:
    """The most bytes that the network needs beyond its weights and one batch of input."""
    from inference.network import predict

    model, batches = prepare(args, batch_size)
    return peak_growth(
        lambda: next(predict(with_compaction(model, compact), batches, "fp32", "torch")), batches[0].device
    )


if __name__ == "__main__":
    sys.exit(run(main))
