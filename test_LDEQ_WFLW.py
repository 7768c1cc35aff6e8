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
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.wflw import NUM_LANDMARKS, RAW_BOXES, SPLITS, WFLWCrops, WFLWTest, load_wflw_test
from evaluation.figures import Panel, contact_sheet, error_curves
from evaluation.scores import Predictions, Score, write_predictions
from inference.flip import mean_with_mirrored
from inference.network import load_network, predict, resolve_device
from inference.options import add_machine_options, add_weights_option
from inference.results import to_results
from models import LDEQ, LDEQConfig, LDEQOutput
from solvers import SOLVERS, Status
from solvers.contract import StopRule
from utils.command_line import format_duration, non_negative_integer, positive_integer, run
from utils.files import prepare_output_folder, save_figure, write_csv, write_json
from utils.processes import Process, gather, initialise_worker, start_process

ROOT = Path(__file__).parent
EXPLICIT = "explicit"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_weights_option(parser)
    parser.add_argument(
        "--dataset_path",
        type=Path,
        default=ROOT / "datasets" / "sample",
        help="folder of WFLW, pre-cropped or raw (default: the shipped sample)",
    )
    parser.add_argument("--raw_box", choices=RAW_BOXES, default="landmarks", help="what raw faces are cropped from")
    parser.add_argument("--workers", type=non_negative_integer, default=2, help="processes that read faces")
    parser.add_argument("--batch_size", type=positive_integer, default=32)
    add_machine_options(parser)
    parser.add_argument(
        "--stop_rule",
        choices=get_args(StopRule),
        default="sample",
        help="whether each face or, as in the original release, a whole batch decides when its solve stops",
    )
    parser.add_argument("--solver", choices=SOLVERS, help="another solver than the checkpoint's")
    parser.add_argument("--max_evals", type=positive_integer, help="budget of the solver in evaluations of the cell")
    parser.add_argument("--tol", type=float, help="residual below which a solve has converged")
    parser.add_argument(
        "--flip", action="store_true", help="take the mean with the landmarks of the mirrored face, at twice the cost"
    )
    parser.add_argument("--output_folder", type=Path, default=Path("results/wflw"))
    parser.add_argument(
        "--plot", type=non_negative_integer, default=0, metavar="N", help="draw the N worst and N median faces"
    )
    return parser.parse_args()


def main() -> None:
    """Run the benchmark."""
    args = parse_arguments()
    started = time.monotonic()
    # TF32 would round the convolutions of "fp32" to 10 bits, and differently for other batch sizes.
    torch.backends.cudnn.allow_tf32 = False
    process = start_process(resolve_device(args.device))
    if process.rank == 0:
        prepare_output_folder(args.output_folder)
    options = {name: getattr(args, name) for name in ("max_evals", "tol") if getattr(args, name) is not None}
    model = load_network(
        args.landmark_model_weights, process.device, NUM_LANDMARKS, args.stop_rule, args.solver, options
    )
    data = load_wflw_test(args.dataset_path, args.raw_box)
    crops = WFLWCrops(data.faces, model.config.image_size)
    plan = plan_inference(data, args.batch_size, args.stop_rule)

    parts = gather(infer(model, crops, plan.batches, args, process), process)
    if parts is None:
        return
    # The ranks took the batches in turn.
    in_order = [parts[batch % len(parts)][batch // len(parts)] for batch in range(len(plan.batches))]
    predictions = Predictions.concatenate(in_order)
    names = np.array([data.faces[face].name for face in plan.faces])
    views = {f"rows_{split}": rows for split, rows in plan.views.items()}
    write_predictions(args.output_folder / "predictions.npz", predictions, image=names, face=plan.faces, **views)

    nmes = predictions.nmes(names)
    scores = {split: Score.of(nmes[rows]) for split, rows in plan.views.items()}
    for split, score in scores.items():
        print(f"{score.lines(split)}\n")
    solves = summarise_solves(predictions, plan.views["test"])
    write_json(
        args.output_folder / "results.json",
        {
            "splits": {split: asdict(score) for split, score in scores.items()},
            "solves": solves,
            "settings": describe_run(args, model, data, process),
        },
    )
    write_csv(args.output_folder / "per_face.csv", per_face_table(predictions, nmes, data, plan))
    curves = error_curves({split: nmes[rows] for split, rows in plan.views.items()})
    save_figure(curves, args.output_folder / "cumulative_error.png")
    if args.plot:
        save_figure(draw_faces(predictions, nmes, crops, plan, args.plot), args.output_folder / "faces.png")
    if solves["converged_percent"] is not None:
        print(f"{solves['mean_evaluations']:.2f} evaluations a face, {solves['converged_percent']:.1f} % converged")
    print(f"Layout: {data.layout}" + (f", faces cropped by their {data.raw_box}" if data.raw_box else ""))
    print(f"Results: {args.output_folder}")
    print(f"Total time: {format_duration(time.monotonic() - started)}")


@dataclass(frozen=True, eq=False)
class InferencePlan:
    """Which faces are inferred together.

    Attributes:
        faces: (N,) index of the face of every prediction.
        batches: The same, cut into batches.
        views: For each split the indices of its predictions.
    """

    faces: np.ndarray
    batches: list[list[int]]
    views: dict[str, np.ndarray]


def plan_inference(data: WFLWTest, batch_size: int, stop_rule: StopRule) -> InferencePlan:
    """Every face once; with the batch rule every split on its own, since a result depends on the rest of the batch."""
    if stop_rule == "sample":
        lists, views = [np.arange(len(data.faces))], data.subsets
    else:
        lists = list(data.subsets.values())
        starts = np.cumsum([0, *map(len, lists)])
        views = {
            split: start + np.arange(len(faces))
            for start, (split, faces) in zip(starts, data.subsets.items(), strict=False)
        }
    batches = [
        faces[start : start + batch_size].tolist() for faces in lists for start in range(0, len(faces), batch_size)
    ]
    return InferencePlan(np.concatenate(lists), batches, views)


def infer(
    model: LDEQ, crops: WFLWCrops, batches: list[list[int]], args: argparse.Namespace, process: Process
) -> list[Predictions]:
    """The predictions of this process's share of the batches."""
    share = batches[process.rank :: process.world_size]
    loader = DataLoader(
        crops,
        batch_sampler=share,
        num_workers=args.workers,
        worker_init_fn=initialise_worker,
        pin_memory=process.device.type == "cuda",
    )
    landmarks = []

    def images() -> Iterator[Tensor]:
        for batch, true in loader:
            landmarks.append(true)
            yield batch
            if args.flip:
                yield batch.flip(3)

    outputs = predict(model, images(), args.precision)
    predictions = []
    with tqdm(total=sum(map(len, share)), unit="face", disable=process.rank > 0) as progress:
        for output in outputs:
            found = to_predictions(output, landmarks[-1], model.config)
            if args.flip:
                mirrored = next(outputs).keypoints.cpu().double().numpy()
                found = replace(found, keypoints=mean_with_mirrored(found.keypoints, mirrored, crops.size))
            predictions.append(found)
            progress.update(len(landmarks[-1]))
    return predictions


def to_predictions(output: LDEQOutput, landmarks: Tensor, config: LDEQConfig) -> Predictions:
    """What is kept of a batch: everything but heatmaps and states."""
    results = to_results(output, config)
    if output.solution is None:
        status = np.full(len(landmarks), EXPLICIT)
    else:
        status = np.array([status_text(Status(value)) for value in output.solution.status.tolist()])
    return Predictions(
        keypoints=results.keypoints,
        landmarks=landmarks.numpy(),
        uncertainty=results.uncertainty.astype(np.float32),
        evaluations=results.evaluations,
        residual=results.residual,
        status=status,
    )


def status_text(status: Status) -> str:
    """A word or two for a table, for example "budget spent"."""
    return status.name.lower().replace("_", " ")


def per_face_table(
    predictions: Predictions, nmes: np.ndarray, data: WFLWTest, plan: InferencePlan
) -> dict[str, Sequence[Any]]:
    """The columns of per_face.csv: every face once, by its first prediction, which is that of `test`."""
    faces, first = np.unique(plan.faces, return_index=True)
    members = {split: set(indices.tolist()) for split, indices in data.subsets.items()}
    return {
        "image": [data.faces[face].name for face in faces],
        "nme": 100 * nmes[first],
        "face": faces,
        "splits": [" ".join(split for split in SPLITS if face in members[split]) for face in faces.tolist()],
        "evaluations": predictions.evaluations[first],
        "residual": predictions.residual[first],
        "status": predictions.status[first],
        "uncertainty": predictions.uncertainty[first].mean(axis=1),
    }


def summarise_solves(predictions: Predictions, rows: np.ndarray) -> dict[str, float | None]:
    """Mean number of evaluations and share of converged solves; an explicit network has no solves to converge."""
    status = predictions.status[rows]
    explicit = np.all(status == EXPLICIT)
    return {
        "mean_evaluations": float(predictions.evaluations[rows].mean()),
        "converged_percent": None if explicit else float(100 * np.mean(status == status_text(Status.CONVERGED))),
    }


def describe_run(args: argparse.Namespace, model: LDEQ, data: WFLWTest, process: Process) -> dict[str, Any]:
    """What the numbers depend on, as plain values."""
    implicit = model.config.mode == "implicit"
    return {
        "weights": str(args.landmark_model_weights),
        "dataset": str(args.dataset_path),
        "layout": data.layout,
        "raw_box": data.raw_box,
        "precision": args.precision,
        "flip": args.flip,
        "stop_rule": args.stop_rule if implicit else None,
        "solver": model.config.to_dict()["solver"] if implicit else None,
        "batch_size": args.batch_size,
        "device": process.device.type,
        "processes": process.world_size,
        "torch": torch.__version__,
    }


def draw_faces(predictions: Predictions, nmes: np.ndarray, crops: WFLWCrops, plan: InferencePlan, count: int) -> Figure:
    """The `count` worst and the `count` median faces of `test` on a contact sheet."""
    test = plan.views["test"]
    groups = {}
    for title, chosen in select_faces(nmes[test], count).items():
        groups[f"{title} {chosen.size} of {test.size} test faces"] = [
            Panel(
                f"NME {100 * nmes[row]:.1f} % (face {plan.faces[row]})",
                crops.crop(plan.faces[row])[0],
                predictions.keypoints[row],
                predictions.landmarks[row],
            )
            for row in test[chosen]
        ]
    return contact_sheet(groups)


def select_faces(nmes: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Positions of the faces with the highest errors, worst first, and of those around the median."""
    order = np.argsort(-nmes, kind="stable")
    start = max(0, (len(order) - count) // 2)
    return {"Worst": order[:count], "Median": order[start : start + count]}


if __name__ == "__main__":
    sys.exit(run(main))
