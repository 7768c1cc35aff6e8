"""Does depth pay, does memory: short trainings that differ in one thing, and what their fixed points do.

python benchmarks/depth.py --faces FACES --clips WFLW_V --initial_weights W --output_folder runs/depth
python benchmarks/depth.py ... --only "depth 0-4" "gate, pairs" --only_report

FACES is a folder of faces in the format of WFLW with the lists `train` and `test`, WFLW_V one of clips. Every run
begins with the backbone of W and a fresh cell at 64 pixels and sees as many samples. Its folder gets weights and
measurements.json; the output folder gets table.md and curves.png. Runs that have been measured are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # A script's own folder comes first on the path, and there `solvers` would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from inference.options import SHIPPED_WEIGHTS
from utils.command_line import positive_integer, run

if TYPE_CHECKING:
    from datasets.clip_stream import TimeStep
    from datasets.wflw_v import Clip
    from models import LDEQ
    from models.ldeq import LDEQOutput
    from solvers import SolverConfig

ROOT = Path(__file__).resolve().parents[1]
IMAGE_SIZE = 64
MEASUREMENTS = "measurements.json"
BUDGETS = (1, 2, 4, 8, 16)
CONVERGED, BUDGET = 5e-3, 12
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
}
"""Options of each run beside the common ones, which track one evaluation by `jfb` after 0 to 4 untracked ones."""
COMMON = (
    *("--gate", "none", "--pair_probability", "0", "--warm_start_probability", "0.3", "--min_depth", "0"),
    *("--pose_boost", "10"),
    *("--preset", "mini", "--image_size", str(IMAGE_SIZE), "--initial_part", "backbone", "--max_depth", "4"),
    *("--epochs", "1", "--batch_size", "16", "--learning_rate", "1e-3", "--warm_up", "0.05", "--ema_decay", "0.99"),
)
VIDEO_MODES: dict[str, dict[str, Any] | None] = {"fresh": None, "RwR": {}, "RwR, crop": {"carry": "crop"}}
"""Options of RwR; None solves every frame from zeros."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--initial_weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--samples", type=positive_integer, default=6400, help="of each run")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN")
    parser.add_argument("--only_report", action="store_true", help="table and curves of what has been measured")
    parser.add_argument("--output_folder", type=Path, default=Path("runs/depth"))
    return parser.parse_args()


def main() -> None:
    """Train, measure, report."""
    args = parse_arguments()
    import torch

    from datasets.clip_stream import stream_crops
    from datasets.wflw_v import list_clips
    from models import load_checkpoint

    torch.set_num_threads(1)
    clips = () if args.only_report else list_clips(args.clips, "all").clips
    steps: list[TimeStep] = []
    for name in () if args.only_report else args.only:
        folder = args.output_folder / name.replace(", ", "_").replace(" ", "_")
        if (folder / MEASUREMENTS).exists():
            continue
        train(folder, RUNS[name], args)
        steps = steps or list(stream_crops(clips, len(clips), IMAGE_SIZE))
        model = load_checkpoint(folder / "weights.safetensors").to(memory_format=torch.channels_last)
        measured = {"name": name, **measure_faces(model, args.faces), **measure_clips(model, clips, steps)}
        (folder / MEASUREMENTS).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(measured), flush=True)
    found = {
        measured["name"]: measured
        for path in args.output_folder.glob(f"*/{MEASUREMENTS}")
        for measured in [json.loads(path.read_text(encoding="utf-8"))]
    }
    rows = [found[name] for name in RUNS if name in found]
    (args.output_folder / "table.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))
    draw(rows, args.output_folder / "curves.png")


def train(folder: Path, options: tuple[str, ...], args: argparse.Namespace) -> None:
    """One run, as from the command line."""
    command = [sys.executable, ROOT / "train_LDEQ_WFLW.py", "--dataset_path", args.faces, "--output_folder", folder]
    command += ["--initial_weights", args.initial_weights, "--samples_per_epoch", args.samples, "--workers", 0]
    command += ["--resume"] if (folder / "state.pt").exists() else []
    subprocess.run([*map(str, command), *COMMON, *options], check=True, cwd=ROOT)


def measure_faces(model: LDEQ, faces: Path) -> dict[str, Any]:
    """NME of the list `test` after some evaluations, contraction, and share converged."""
    import torch
    from torch.utils.data import DataLoader

    from datasets.wflw import WFLWCrops, read_faces
    from inference.network import predict
    from solvers import AndersonConfig, FixedPointConfig
    from utils.metrics import nme

    batches = list(DataLoader(WFLWCrops(read_faces(faces, "test"), model.config.image_size), batch_size=64))
    truth = torch.cat([landmarks for _, landmarks in batches]).numpy()

    def solve(solver: SolverConfig) -> list[LDEQOutput]:
        solving = model.with_solver(solver)
        solving.config = replace(solving.config, final_evaluation=False)
        return list(predict(solving, (images for images, _ in batches)))

    errors = {}
    for budget in BUDGETS:
        outputs = solve(FixedPointConfig(max_evals=budget, tol=0))
        keypoints = torch.cat([output.keypoints for output in outputs]).double().numpy()
        errors[str(budget)] = float(100 * nme(keypoints, truth).mean())
    trace = torch.cat([output.solution.trace for output in outputs], dim=1)
    best = torch.cat([output.solution.residual for output in solve(AndersonConfig(max_evals=BUDGET, tol=0))])
    return {
        "nme": errors,
        # Geometric mean over the evaluations 3 and 4, before rounding sets in.
        "contraction": float((trace[3] / trace[1]).sqrt().median()),
        "converged": float(100 * (best < CONVERGED).float().mean()),
    }


def measure_clips(model: LDEQ, clips: Sequence[Clip], steps: Sequence[TimeStep]) -> dict[str, Any]:
    """NME and NMJ of fresh solves and of RwR with 2 evaluations a frame, means over the clips of each split."""
    import numpy as np

    from datasets.wflw_v import read_landmarks
    from inference.streams import Streams
    from models.rwr import RwRConfig
    from utils.geometry import transform_points
    from utils.images import to_network_input
    from utils.metrics import video_nme, video_nmj

    streams = {
        mode: Streams(model, None if options is None else RwRConfig(**options)) for mode, options in VIDEO_MODES.items()
    }
    found = {mode: [np.empty((clip.frames, 98, 2)) for clip in clips] for mode in streams}
    for step in steps:
        if step.slots.size == 0:
            continue
        images = to_network_input(step.images[:, 0])
        matrices = step.matrices[:, 0]
        for mode, of_mode in streams.items():
            keypoints = of_mode.step(images, matrices, step.slots, step.frames == 0).keypoints
            for row, (clip, frame) in enumerate(zip(step.clips.tolist(), step.frames.tolist(), strict=True)):
                found[mode][clip][frame] = transform_points(keypoints[row], matrices[row], inverse=True)
    truth = [read_landmarks(clip) for clip in clips]
    scores: dict[str, Any] = {}
    for mode, landmarks in found.items():
        for split in ("easy", "hard"):
            pairs = [
                (predicted, true)
                for predicted, true, clip in zip(landmarks, truth, clips, strict=True)
                if clip.split == split
            ]
            scores[f"{mode} {split}"] = [mean(measure(*pair) for pair in pairs) for measure in (video_nme, video_nmj)]
    return scores


def table(rows: list[dict[str, Any]]) -> str:
    """The measurements as a table in Markdown."""
    head = ["run", *(f"NME {budget}" for budget in BUDGETS), "contraction", "converged %"]
    head += ["fresh NME", "fresh NMJ", "RwR NME", "RwR NMJ", "RwR, crop NMJ"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in rows:
        cells = [row["name"], *(f"{row['nme'][str(budget)]:.2f}" for budget in BUDGETS)]
        cells += [f"{row['contraction']:.3f}", f"{row['converged']:.0f}"]
        for mode, number in (("fresh", 0), ("fresh", 1), ("RwR", 0), ("RwR", 1), ("RwR, crop", 1)):
            easy, hard = (row[f"{mode} {split}"][number] for split in ("easy", "hard"))
            if mode == "fresh" or number == 0:
                cells.append(f"{easy:.2f} / {hard:.2f}" if number == 0 else f"{easy:.0f} / {hard:.0f}")
            else:
                change = [
                    100 * (row[f"{mode} {split}"][1] / row[f"fresh {split}"][1] - 1) for split in ("easy", "hard")
                ]
                cells.append(f"{change[0]:+.1f} % / {change[1]:+.1f} %")
        lines.append(" | ".join(cells))
    return "".join(f"| {line} |\n" for line in lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """NME over evaluations, and the change of NMJ by RwR against the contraction."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    depth, memory = figure.subplots(1, 2)
    markers = "osD^v<>Pp*hXd8"
    for row, marker in zip(rows, markers, strict=False):
        errors = [row["nme"][str(budget)] / row["nme"][str(BUDGETS[-1])] for budget in BUDGETS]
        depth.plot(BUDGETS, errors, marker=marker, label=row["name"])
        change = mean(100 * (row[f"RwR {split}"][1] / row[f"fresh {split}"][1] - 1) for split in ("easy", "hard"))
        memory.plot(row["contraction"], change, marker=marker, linestyle="none", label=row["name"])
    depth.set(
        xscale="log", xlabel="evaluations of the cell from zeros", ylabel="NME over that after 16", xticks=BUDGETS
    )
    depth.set_xticklabels(map(str, BUDGETS))
    memory.set(xlabel="contraction per evaluation", ylabel="change of NMJ by RwR with 2 evaluations, %")
    memory.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    for axes in (depth, memory):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    sys.exit(run(main))
