"""Train LDEQ on WFLW, in either layout, or on other faces in its format.

python train_LDEQ_WFLW.py --preset mini --dataset_path /path/to/WFLW --output_folder runs/mini
python train_LDEQ_WFLW.py --preset mini --dataset_path /path/to/WFLW --output_folder runs/mini --resume
torchrun --nproc_per_node=8 train_LDEQ_WFLW.py --preset paper --dataset_path /path/to/WFLW --output_folder runs/paper \\
    --backbone_weights hrnetv2_w18_imagenet_pretrained.pth --precision bf16

The run folder gets weights.safetensors (the moving average of the weights, after every epoch), config.json, log.csv,
curves.png, and state.pt, from which --resume resumes exactly. Ctrl-C saves the state first.
"""

import argparse
import sys
from dataclasses import fields

from inference.options import add_machine_options
from training.config import PRESETS, RunOptions, add_options, from_options
from utils.command_line import (
    evaluation_budget,
    given_path,
    non_negative_integer,
    non_negative_number,
    positive_integer,
    run,
    script_parser,
    worker_count,
)

BACKBONES = ("stem", "hrnet_w18", "hrnet_w18_small", "hrnet_mini")

GATES = ("none", "constant", "learned")

INITIAL_PARTS = ("all", "backbone")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--dataset_path", type=given_path, required=True, help="folder of WFLW, in either layout")
    parser.add_argument("--output_folder", type=given_path, required=True, help="the run folder")
    parser.add_argument("--resume", action="store_true", help="resume the run in --output_folder")
    parser.add_argument("--preset", choices=PRESETS, default="mini", help="network, and defaults of the other options")
    parser.add_argument("--backbone", choices=BACKBONES, help="default: the preset's")
    parser.add_argument("--image_size", type=positive_integer, help="side of the network's input, a multiple of 64")
    parser.add_argument("--cell_width", type=positive_integer, help="channels of the cell at its finest level")
    parser.add_argument(
        "--cell_width_increment", type=non_negative_integer, help="further channels at each coarser level"
    )
    parser.add_argument("--gate", choices=GATES, help="share of the new heatmaps in the cell's output")
    parser.add_argument("--gate_start", type=float, help="value of that share, or initial value of a learned gate")
    parser.add_argument("--max_evals", type=evaluation_budget, help="budget of the network's solver")
    parser.add_argument("--backbone_weights", type=given_path, help="ImageNet weights of a published HRNet")
    parser.add_argument(
        "--initial_weights",
        type=given_path,
        help="checkpoint to start from; its image size may differ, and it may have no gate",
    )
    parser.add_argument("--initial_part", choices=INITIAL_PARTS, default="all", help="part of --initial_weights to use")
    parser.add_argument("--workers", type=worker_count, default=2, help="processes that read and augment faces")
    add_machine_options(parser)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network: slow to start, then 1.3 times as fast (CPU)",
    )
    parser.add_argument(
        "--save_minutes",
        type=non_negative_number,
        default=10,
        help="minutes between saves of the state within an epoch",
    )
    parser.add_argument(
        "--augmentation",
        nargs="+",
        default=(),
        metavar="NAME=VALUE",
        help="strengths to use instead of those in training/augmentation_config.py; a range is LOW,HIGH",
    )
    add_options(parser)
    return parser.parse_args()


def main() -> None:
    """Train to the last epoch, from the first or from the saved state."""
    args = parse_arguments()
    config = from_options(args)
    # Loaded here, since torch is slow to load and `--help` and a wrong option do without it.
    from training.loop import train

    train(RunOptions(**{item.name: getattr(args, item.name) for item in fields(RunOptions)}), config)


if __name__ == "__main__":
    sys.exit(run(main))
