"""Measurements of a trained network's fixed points on faces and clips, and the report of several networks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from datasets.clip_stream import TimeStep
from datasets.wflw import WFLWCrops, read_faces
from datasets.wflw_v import Clip, read_landmarks
from inference.network import predict
from inference.streams import Streams
from models import LDEQ
from models.ldeq import LDEQOutput
from models.rwr import RwRConfig
from solvers import AndersonConfig, FixedPointConfig, SolverConfig
from utils.files import save_figure
from utils.geometry import transform_points
from utils.images import to_network_input
from utils.metrics import nme, video_nme, video_nmj

BUDGETS = (1, 2, 4, 8, 16)
CONVERGED, BUDGET = 5e-3, 12
VIDEO_MODES = {
    "fresh": None,
    "RwR": RwRConfig(),
    "RwR, crop": RwRConfig(carry="crop"),
}


def measure_faces(model: LDEQ, faces: Path) -> dict[str, Any]:
    """NME of the list `test` after some evaluations, contraction, and share converged."""
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
    trace = torch.cat([output.solved.trace for output in outputs], dim=1)
    best = torch.cat([output.solved.residual for output in solve(AndersonConfig(max_evals=BUDGET, tol=0))])
    return {
        "nme": errors,
        # Geometric mean over evaluations 3 and 4, before rounding dominates.
        "contraction": float((trace[3] / trace[1]).sqrt().median()),
        "converged": float(100 * (best < CONVERGED).float().mean()),
    }


@torch.inference_mode()
def measure_clips(model: LDEQ, clips: Sequence[Clip], steps: Sequence[TimeStep]) -> dict[str, Any]:
    """NME and NMJ of fresh solves and of RwR with 2 evaluations per frame, means over the clips of each split."""
    streams = {mode: Streams(model, config) for mode, config in VIDEO_MODES.items()}
    found = {mode: [np.empty((clip.frames, 98, 2)) for clip in clips] for mode in streams}
    for step in steps:
        if step.slots.size == 0:
            continue
        images = to_network_input(step.images[:, 0]).to(memory_format=torch.channels_last)
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
            scores[f"{mode} {split}"] = [
                float(np.mean([measure(*pair) for pair in pairs])) for measure in (video_nme, video_nmj)
            ]
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
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    depth, memory = figure.subplots(1, 2)
    markers = "osD^v<>Pp*hXd8"
    for row, marker in zip(rows, markers, strict=False):
        errors = np.array([row["nme"][str(budget)] for budget in BUDGETS])
        depth.plot(BUDGETS, errors / errors[-1], marker=marker, label=row["name"])
        change = np.mean([100 * (row[f"RwR {split}"][1] / row[f"fresh {split}"][1] - 1) for split in ("easy", "hard")])
        memory.plot(row["contraction"], change, marker=marker, linestyle="none", label=row["name"])
    depth.set(
        xscale="log", xlabel="evaluations of the cell from zeros", ylabel="NME over that after 16", xticks=BUDGETS
    )
    depth.set_xticklabels(map(str, BUDGETS))
    memory.set(xlabel="contraction per evaluation", ylabel="change of NMJ by RwR with 2 evaluations, %")
    memory.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    for axes in (depth, memory):
        axes.grid(alpha=0.3)
    save_figure(figure, path)
