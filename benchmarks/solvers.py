"""Time and memory traffic of one solver step, compared with one evaluation of the cell, at the paper's state size.

python benchmarks/solvers.py                                   # CPU, batch 1 and 8
python benchmarks/solvers.py --device cuda --batch_sizes 1 8 32 --output_folder results

A step is one turn of the solver's loop without the evaluation of f. Traffic counts the bytes of every tensor that an
operation reads or writes (views are free), in units of the state, 98 x 64 x 64 float32.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # A script's own folder comes first on the path; `solvers` there would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.measuring import add_measuring_options, report
from inference.options import DEVICES
from utils.command_line import positive_integer, run, script_parser


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--batch_sizes", type=positive_integer, nargs="+", default=[1, 8])
    add_measuring_options(parser, repeats=5, table="solvers.csv")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write it where asked."""
    args = parse_arguments()
    from benchmarks.solver_steps import measure
    from inference.network import resolve_device

    device = resolve_device(args.device)
    table = measure(device, args.batch_sizes, args.repeats)
    report(table, device, args.output_folder and args.output_folder / "solvers.csv")


if __name__ == "__main__":
    sys.exit(run(main))
