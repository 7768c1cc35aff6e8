"""WFLW benchmark: NME, FR and AUC on the test split and its six subsets.

python test_LDEQ_WFLW.py                 # the shipped weights on the shipped sample
python test_LDEQ_WFLW.py --landmark_model_weights final.pth.tar --dataset_path /path/to/WFLW --stop_rule batch
torchrun --nproc_per_node=8 test_LDEQ_WFLW.py --landmark_model_weights final.pth.tar --dataset_path /path/to/WFLW

The dataset is WFLW in either layout (datasets/wflw.py), the weights are ours or those of the original release. The
output folder gets predictions.npz, results.json, per_face.csv, cumulative_error.png and, with --plot, faces.png.

With --stop_rule sample every face is inferred once, and the numbers do not depend on batch size, workers or processes.
With --stop_rule batch, the rule of the original release, a face is solved for as long as the rest of its batch needs;
so each split is inferred on its own, in batches in the order of its list, as the original does. Keep its batch size of
32 to compare; per_face.csv has the predictions made for `test`. The processes of torchrun share out whole batches,
which changes no number under either rule.

A face whose solve is not finite is reported, the others are scored, and the exit status is 1.
"""

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from evaluation.settings import RAW_BOXES, SAMPLE, FaceSettings
from inference.options import SOLVERS, STOP_RULES, add_engine_options, add_machine_options, add_weights_option
from utils.command_line import (
    evaluation_budget,
    format_duration,
    non_negative_integer,
    non_negative_number,
    positive_integer,
    run,
    worker_count,
)


def parse_arguments() -> FaceSettings:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset_path", type=Path, default=SAMPLE, help="folder of WFLW, pre-cropped or raw (default: the sample)"
    )
    data.add_argument(
        "--raw_box", choices=RAW_BOXES, default="landmarks", help="what raw faces are cropped from (default: landmarks)"
    )
    data.add_argument("--workers", type=worker_count, default=2, help="processes that read faces (default: 2)")
    network = parser.add_argument_group("network and solver")
    add_weights_option(network)
    add_machine_options(network)
    add_engine_options(network)
    network.add_argument(
        "--batch_size", type=positive_integer, default=32, help="faces that are solved together (default: 32)"
    )
    network.add_argument(
        "--stop_rule",
        choices=STOP_RULES,
        default="sample",
        help="whether each face or, as in the original release, a whole batch decides when its solve stops "
        "(default: sample)",
    )
    network.add_argument("--solver", choices=SOLVERS, help="another solver than the checkpoint's")
    network.add_argument("--max_evals", type=evaluation_budget, help="budget of the solver in evaluations of the cell")
    network.add_argument("--tol", type=non_negative_number, help="residual below which a solve has converged")
    network.add_argument(
        "--flip", action="store_true", help="take the mean with the landmarks of the mirrored face, at twice the cost"
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output_folder", type=Path, default=Path("results/wflw"), help="where they go (default: results/wflw)"
    )
    results.add_argument(
        "--plot", type=non_negative_integer, default=0, metavar="N", help="draw the N worst and N median faces"
    )
    return FaceSettings(**vars(parser.parse_args()))


def main() -> int:
    """Run the benchmark; returns the exit status."""
    settings = parse_arguments()
    started = time.monotonic()
    # Loaded after the options are read, since torch is slow to load.
    from evaluation.wflw import evaluate_faces, format_evaluation, write_evaluation
    from inference.network import resolve_device
    from utils.files import locked_folder
    from utils.processes import start_process

    process = start_process(resolve_device(settings.device))
    with locked_folder(settings.output_folder) if process.rank == 0 else nullcontext():
        evaluation = evaluate_faces(settings, process)
        if evaluation is None:
            return 0
        try:
            write_evaluation(evaluation, settings)
        finally:
            # Also where the disk is full.
            print(format_evaluation(evaluation, settings))
    print(f"Results: {settings.output_folder}")
    print(f"Total time: {format_duration(time.monotonic() - started)}")
    for name in evaluation.failed:
        print(f"failed: {name}: its solve is not finite; try --precision fp32, else the weights are unfit")
    return 1 if evaluation.failed else 0


if __name__ == "__main__":
    sys.exit(run(main))
