"""WFLW-V video evaluation: NME and NMJ of every clip, with or without RwR.

python test_LDEQ_WFLW_V.py               # the shipped weights on the shipped sample
python test_LDEQ_WFLW_V.py --landmark_model_weights final.pth.tar --WFLW_V_dataset_path /path/to/WFLW_V \\
    --WFLW_V_split easy --rwr true --WFLW_V_batch_size 5 --WFLW_V_workers 8
python test_LDEQ_WFLW_V.py ... --resume  # resume a run that was stopped
python test_LDEQ_WFLW_V.py ... --compare # RwR, no RwR, and no RwR with temporal filters, on the same frames and crops
torchrun --nproc_per_node=8 test_LDEQ_WFLW_V.py ...  # divide the clips among processes; the numbers stay the same

The dataset has the layout of WFLW-V (datasets/wflw_v.py); the weights are ours or those of the original release. When a
clip ends, the output folder gets its predictions (predictions/) and a row of per_video.csv. At the end it gets
results.json; with --compare also comparison.csv, comparison.png, convergence.png and plots/<id>.png; with --save_video
videos/<id>.mp4.

A clip that cannot be read or solved is reported with the reason, and named on stderr; the others are evaluated, and the
exit status is 1.

With RwR a frame takes --rwr_max_iters evaluations of the cell and a final one. Without RwR every frame is solved from
zeros by the checkpoint's own solver. With --stop_rule batch and no RwR, the frames of parallel clips form a batch, and
the numbers depend on --WFLW_V_batch_size. In all other cases they do not.
"""

import sys
import time
from contextlib import nullcontext
from pathlib import Path

from evaluation.settings import CLIP_SPLITS, SAMPLE, ClipSettings
from inference.options import (
    CROPS,
    RWR_VARIANTS,
    STOP_RULES,
    add_engine_options,
    add_machine_options,
    add_weights_option,
)
from utils.command_line import (
    evaluation_budget,
    format_duration,
    given_path,
    positive_integer,
    run,
    script_parser,
    true_or_false,
    worker_count,
)


def parse_arguments() -> ClipSettings:
    """Read the command line."""
    parser = script_parser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--WFLW_V_dataset_path", type=given_path, default=SAMPLE, help="folder of WFLW-V (default: the shipped sample)"
    )
    data.add_argument("--WFLW_V_split", choices=CLIP_SPLITS, default="all", help="clips to evaluate (default: all)")
    data.add_argument(
        "--crop", choices=CROPS, default="original", help="how faces are cut out of the frames (default: original)"
    )
    data.add_argument("--WFLW_V_batch_size", type=positive_integer, default=5, help="clips in parallel (default: 5)")
    data.add_argument("--WFLW_V_workers", type=worker_count, default=2, help="processes that decode clips (default: 2)")
    network = parser.add_argument_group("network")
    add_weights_option(network)
    add_machine_options(network)
    add_engine_options(network)
    network.add_argument(
        "--stop_rule",
        choices=STOP_RULES,
        default="sample",
        help="without RwR, a solve stops for each frame separately (sample), or for the frames of parallel clips "
        "together (batch) (default: sample)",
    )
    network.add_argument(
        "--verbose_solver", type=true_or_false, default=False, metavar="true|false", help="print one line per frame"
    )
    rwr = parser.add_argument_group("RwR")
    rwr.add_argument(
        "--rwr",
        type=true_or_false,
        default=True,
        metavar="true|false",
        help="start each solve from the solution of the previous frame (default: true)",
    )
    rwr.add_argument(
        "--rwr_max_iters",
        type=evaluation_budget,
        default=1,
        help="evaluations of the cell per frame, without the final one (default: 1)",
    )
    rwr.add_argument(
        "--rwr_take_one_less_inference_step",
        type=true_or_false,
        default=False,
        metavar="true|false",
        help="leave out the final evaluation (default: false)",
    )
    rwr.add_argument(
        "--rwr_variant",
        choices=RWR_VARIANTS,
        default=RWR_VARIANTS[0],
        help="RwR of the original, or a variant of models/rwr.py with less jitter (default: faithful)",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output_folder",
        type=given_path,
        default=Path("results/wflw_v"),
        help="folder of the results (default: results/wflw_v)",
    )
    results.add_argument("--resume", action="store_true", help="keep the clips that an earlier run finished")
    results.add_argument(
        "--compare", action="store_true", help="RwR, no RwR, and no RwR with temporal filters, on the same frames"
    )
    results.add_argument(
        "--tuning_ids",
        nargs="+",
        metavar="ID",
        help="clips for tuning the filters of --compare, which are then not evaluated; or a file with one id per line "
        "(default: every fourth clip in sorted order, at most 20)",
    )
    results.add_argument(
        "--plot", action="store_true", help="plot clips with and without RwR, and convergence, as with --compare"
    )
    results.add_argument("--save_video", action="store_true", help="write the clips with their landmarks")
    args = parser.parse_args()
    if args.tuning_ids and not args.compare:
        parser.error("--tuning_ids needs --compare")
    return ClipSettings(**vars(args))


def main() -> int:
    """Run the evaluation; returns the exit status."""
    settings = parse_arguments()
    started = time.monotonic()
    # Imported after the options are read, because torch is slow to load.
    from evaluation.wflw_v import evaluate_clips
    from inference.network import resolve_device
    from utils.files import locked_folder
    from utils.processes import start_process
    from utils.progress import print_warning

    process = start_process(resolve_device(settings.device))
    with locked_folder(settings.output_folder) if process.rank == 0 else nullcontext():
        evaluation = evaluate_clips(settings, process)
        if evaluation is None:
            return 0
        try:
            evaluation.write()
        finally:
            # Printed even if the disk is full.
            print(evaluation.text())
        if settings.compare or settings.plot or settings.save_video:
            # Imported only when needed, because matplotlib and SciPy are slow to load and take memory.
            from evaluation.video_pictures import write_further_results

            if comparison := write_further_results(evaluation):
                print(f"\n{comparison}\n")
    print(f"Results: {settings.output_folder}")
    print(f"Total time: {format_duration(time.monotonic() - started)}")
    for video_id, reason in evaluation.failed.items():
        print(f"not evaluated: {video_id}: {reason}")
    if evaluation.failed:
        reasons = settings.output_folder / "results.json"
        print_warning(f"not evaluated: {', '.join(evaluation.failed)}; {reasons} has the reasons")
    return 1 if evaluation.failed else 0


if __name__ == "__main__":
    sys.exit(run(main))
