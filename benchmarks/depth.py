"""Short training runs that differ in one option, and measurements of their fixed points (docs/depth.md).

python benchmarks/depth.py --faces FACES --clips WFLW_V --initial_weights W --output_folder runs/depth
python benchmarks/depth.py ... --only "depth 0-4" "gate, pairs" --only_report

FACES is a folder of faces in the format of WFLW with the lists `train` and `test`, WFLW_V a folder of clips. Every run
starts with the backbone of W and a new cell at 64 pixels, and sees the same number of samples. The runs "from scratch"
start with a new backbone, and see twice as many. The folder of a run gets weights and measurements.json; the
output folder gets table.md and curves.png. Measured runs are not repeated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    # A script's own folder comes first on the path; `solvers` there would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from inference.options import SHIPPED_WEIGHTS
from utils.command_line import given_path, positive_integer, run, script_parser

ROOT = Path(__file__).resolve().parents[1]
IMAGE_SIZE = 64
MEASUREMENTS = "measurements.json"
SCRATCH = 2
"""Samples of a run from scratch, over those of the others."""
PAIRS = ("--min_depth", "1", "--pair_probability", "0.4", "--jitter_weight", "2", "--warm_start_probability", "0")
GATE = ("--gate", "learned", "--gate_start", "0.5")
RUNS: dict[str, tuple[str, ...]] = {
    "depth 0-4": (),
    "depth 2-8": ("--min_depth", "2", "--max_depth", "8"),
    "depth 8": ("--min_depth", "8", "--max_depth", "8"),
    "depth 2-8, 2 tracked": ("--min_depth", "2", "--max_depth", "8", "--phantom_steps", "2"),
    "depth 2-8, 4 tracked": ("--min_depth", "2", "--max_depth", "8", "--phantom_steps", "4"),
    "ift": ("--gradient", "ift"),
    "damped 0.5": ("--gate", "constant", "--gate_start", "0.5"),
    "pairs, jitter 0.5": (*PAIRS, "--jitter_weight", "0.5"),
    "pairs, jitter 2": PAIRS,
    "pairs, crop": (*PAIRS, "--pair_carry", "crop"),
    "damped 0.7, pairs": ("--gate", "constant", "--gate_start", "0.7", *PAIRS),
    "gate": GATE,
    "gate, pairs": (*GATE, *PAIRS),
    "gate, pairs, crop": (*GATE, *PAIRS, "--pair_carry", "crop"),
    "from scratch": (),
    # Operations per frame of RwR: 95 % of those of the run before.
    "from scratch, stem and wide cell": ("--backbone", "stem", "--cell_width", "40"),
}
"""Options of each run; by default `jfb` tracks one evaluation after 0 to 4 untracked ones."""
COMMON = (
    *("--gate", "none", "--pair_probability", "0", "--warm_start_probability", "0.3", "--min_depth", "0"),
    *("--pose_boost", "10"),
    *("--preset", "mini", "--image_size", str(IMAGE_SIZE), "--max_depth", "4"),
    *("--epochs", "1", "--batch_size", "16", "--learning_rate", "1e-3", "--warm_up", "0.05", "--ema_decay", "0.99"),
)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--faces", type=given_path, required=True)
    parser.add_argument("--clips", type=given_path, required=True)
    parser.add_argument("--initial_weights", type=given_path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--samples", type=positive_integer, default=6400, help="training samples of each run")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN")
    parser.add_argument("--only_report", action="store_true", help="only write the table and curves of measured runs")
    parser.add_argument("--output_folder", type=given_path, default=Path("runs/depth"))
    return parser.parse_args()


def main() -> None:
    """Train, measure, report."""
    args = parse_arguments()
    import torch

    from benchmarks.depth_measurements import draw, measure_clips, measure_faces, table
    from datasets.clip_stream import TimeStep, stream_crops
    from datasets.wflw_v import list_clips
    from models import load_checkpoint
    from utils.files import write_json, write_text

    torch.set_num_threads(1)
    clips = list_clips(args.clips, "all").clips
    steps: list[TimeStep] = []
    for name in args.only if not args.only_report else ():
        folder = args.output_folder / name.replace(", ", "_").replace(" ", "_")
        if (folder / MEASUREMENTS).exists():
            continue
        train(folder, name, args)
        steps = steps or list(stream_crops(clips, len(clips), IMAGE_SIZE))
        model = load_checkpoint(folder / "weights.safetensors").to(memory_format=torch.channels_last)
        measured = {"name": name, **measure_faces(model, args.faces), **measure_clips(model, clips, steps)}
        write_json(folder / MEASUREMENTS, measured)
        print(json.dumps(measured), flush=True)
    found = {
        measured["name"]: measured
        for path in args.output_folder.glob(f"*/{MEASUREMENTS}")
        for measured in [json.loads(path.read_text(encoding="utf-8"))]
    }
    rows = [found[name] for name in RUNS if name in found]
    write_text(args.output_folder / "table.md", table(rows))
    print(table(rows))
    draw(rows, args.output_folder / "curves.png")


def train(folder: Path, name: str, args: argparse.Namespace) -> None:
    """One run of the training script."""
    scratch = name.startswith("from scratch")
    command = [sys.executable, ROOT / "train_LDEQ_WFLW.py", "--dataset_path", args.faces, "--output_folder", folder]
    command += ["--samples_per_epoch", args.samples * (SCRATCH if scratch else 1), "--workers", 0]
    command += [] if scratch else ["--initial_weights", args.initial_weights, "--initial_part", "backbone"]
    command += ["--resume"] if (folder / "state.pt").exists() else []
    subprocess.run([*map(str, command), *COMMON, *RUNS[name]], check=True, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(run(main))
