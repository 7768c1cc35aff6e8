"""WFLW benchmark: NME, FR and AUC on the test split and its six subsets.

python test_LDEQ_WFLW.py                 # the shipped weights on the shipped sample
python test_LDEQ_WFLW.py --landmark_model_weights final.pth.tar --dataset_path /path/to/WFLW --stop_rule batch
torchrun --nproc_per_node=8 test_LDEQ_WFLW.py --landmark_model_weights final.pth.tar --dataset_path /path/to/WFLW

The dataset is WFLW in either layout (datasets/wflw.py); the weights are ours or those of the original release. The
output folder gets predictions.npz, results.json, per_face.csv, cumulative_error.png and, with --plot, faces.png.

With --stop_rule sample every face is inferred once, and the numbers do not depend on batch size, workers or processes.
--stop_rule batch is the rule of the original release: a batch is solved until its mean residual has converged. So each
split is inferred separately, in batches in the order of its list, as in the original. Keep the batch size of 32 for a
comparison with it; per_face.csv has the predictions made for `test`. The processes of torchrun divide whole batches
among them, which changes no number under either rule.

A face whose solve is not finite is reported, has no NME, and counts as a failure in FR and AUC; the exit status is 1.
"""

import sys
import time
from contextlib import nullcontext
from pathlib import Path

from evaluation.settings import RAW_BOXES, SAMPLE, FaceSettings
from inference.options import SOLVERS, STOP_RULES, add_engine_options, add_machine_options, add_weights_option
from utils.command_line import (
    evaluation_budget,
    format_duration,
    given_path,
    non_negative_integer,
    non_negative_number,
    positive_integer,
    run,
    script_parser,
    worker_count,
)


def parse_arguments() -> FaceSettings:
    """Read the command line."""
    parser = script_parser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset_path",
        type=given_path,
        default=SAMPLE,
        help="folder of WFLW, pre-cropped or raw (default: the sample)",
    )
    data.add_argument(
        "--raw_box", choices=RAW_BOXES, help="box of raw faces for their crop, raw WFLW only (default: landmarks)"
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
        help="a solve stops for each face separately (sample), or for a whole batch as in the original release (batch) "
        "(default: sample)",
    )
    network.add_argument("--solver", choices=SOLVERS, help="solver to use instead of the checkpoint's")
    network.add_argument("--max_evals", type=evaluation_budget, help="budget of the solver in evaluations of the cell")
    network.add_argument("--tol", type=non_negative_number, help="residual below which a solve has converged")
    network.add_argument(
        "--flip", action="store_true", help="average with the landmarks of the mirrored face, at twice the cost"
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output_folder",
        type=given_path,
        default=Path("results/wflw"),
        help="folder of the results (default: results/wflw)",
    )
    results.add_argument(
        "--plot", type=non_negative_integer, default=0, metavar="N", help="draw the N worst and N median faces"
    )
    return FaceSettings(**vars(parser.parse_args()))


def main() -> int:
    """Run the benchmark; returns the exit status."""
    settings = parse_arguments()
    started = time.monotonic()
    # Imported after the options are read, because torch is slow to load.
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
            # Printed even if the disk is full.
            print(format_evaluation(evaluation, settings))
    print(f"Results: {settings.output_folder}")
    print(f"Total time: {format_duration(time.monotonic() - started)}")
    for name in evaluation.failed:
        print(f"failed: {name}: the solve is not finite; try --precision fp32, or other weights")
    return 1 if evaluation.failed else 0


if __name__ == "__main__":
    sys.exit(run(main))
