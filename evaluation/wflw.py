"""The WFLW benchmark: batches of faces, their predictions and scores, the files."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader

from datasets.wflw import SPLITS, WFLWCrops, WFLWTest, load_wflw_test
from evaluation.conditions import Conditions, describe_faces
from evaluation.figures import Panel, contact_sheet, error_curves
from evaluation.scores import UNITS, Predictions, Score, format_scores, write_predictions
from evaluation.settings import FaceSettings
from inference.engines import Engine, open_engine
from inference.flip import mean_with_mirrored
from inference.network import load_network, predict, use_threads
from inference.results import to_results
from models import LDEQ, LDEQConfig, LDEQOutput
from solvers import Status
from utils.files import protect_inputs, save_figure, write_csv, write_json
from utils.landmark_groups import NUM_LANDMARKS
from utils.processes import Process, gather, initialise_worker
from utils.progress import progress_bar

EXPLICIT = "explicit"


@dataclass(frozen=True, eq=False)
class InferencePlan:
    """The batches of the inference.

    Attributes:
        faces: (N,) index of the face of every prediction.
        batches: The same indices, divided into batches.
        views: For each split the indices of its predictions.
    """

    faces: np.ndarray
    batches: list[list[int]]
    views: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class FaceEvaluation:
    """The results of the benchmark before they are written.

    Attributes:
        data: The faces.
        crops: The network's inputs.
        plan: The order of the predictions.
        predictions: The prediction for every face of the plan.
        nmes: (N,) errors as fractions, NaN if the solve failed.
        settings: Everything that the numbers depend on, as plain values.
    """

    data: WFLWTest
    crops: WFLWCrops
    plan: InferencePlan
    predictions: Predictions
    nmes: np.ndarray
    settings: dict[str, Any]

    @property
    def scores(self) -> dict[str, Score]:
        """The scores of every split."""
        return {split: Score.of(self.nmes[rows]) for split, rows in self.plan.views.items()}

    def conditions(self, settings: FaceSettings) -> Conditions:
        """The data behind the numbers."""
        scores = self.scores
        counts = {split: score.count for split, score in scores.items()}
        found = describe_faces(settings.dataset_path, counts, scores["test"].failed)
        return replace(found, text=f"{found.text}; mean with the mirrored face") if settings.flip else found

    @property
    def failed(self) -> list[str]:
        """Names of the faces whose solve gave no landmarks, each once."""
        faces = self.plan.faces[self.predictions.failed]
        return [self.data.faces[face].name for face in dict.fromkeys(faces.tolist())]


def evaluate_faces(settings: FaceSettings, process: Process) -> FaceEvaluation | None:
    """Infer and score all faces; under torchrun every process does its share.

    Args:
        settings: See `FaceSettings`.
        process: This process.

    Returns:
        The evaluation; None on all processes of torchrun except the first.

    Raises:
        UserError: If an option, the checkpoint, the data or the output folder cannot be used.
    """
    use_threads(settings.threads)
    changes = {"max_evals": settings.max_evals, "tol": settings.tol}
    model = load_network(
        settings.landmark_model_weights,
        process.device,
        NUM_LANDMARKS,
        settings.stop_rule,
        settings.solver,
        {name: value for name, value in changes.items() if value is not None},
    )
    engine = open_engine(model, settings.engine, settings.precision)
    data = load_wflw_test(settings.dataset_path, settings.raw_box)
    protect_faces(settings, data)
    crops = WFLWCrops(data.faces, model.config.image_size)
    plan = plan_inference(data, settings.batch_size, settings.stop_rule)
    parts = gather(infer(model, engine, crops, plan.batches, settings, process), process)
    if parts is None:
        return None
    # The ranks took the batches in turn.
    in_order = [parts[batch % len(parts)][batch // len(parts)] for batch in range(len(plan.batches))]
    predictions = Predictions.concatenate(in_order)
    return FaceEvaluation(
        data, crops, plan, predictions, predictions.nmes(), describe_run(settings, model, engine, data, process)
    )


def protect_faces(settings: FaceSettings, data: WFLWTest) -> None:
    """Check that no result replaces a file of the dataset or the checkpoint.

    Raises:
        OutputError: If one would.
    """
    names = ("predictions.npz", "results.json", "per_face.csv", "cumulative_error.png", "faces.png")
    lists = settings.dataset_path.rglob("*.txt")
    inputs = [settings.landmark_model_weights, *lists, *(face.image_path for face in data.faces)]
    protect_inputs([settings.output_folder / name for name in names], inputs)


def plan_inference(data: WFLWTest, batch_size: int, stop_rule: str) -> InferencePlan:
    """Infer every face once; with the batch rule every split separately, because results depend on the whole batch."""
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
    model: LDEQ,
    engine: Engine,
    crops: WFLWCrops,
    batches: list[list[int]],
    settings: FaceSettings,
    process: Process,
) -> list[Predictions]:
    """The predictions of this process's share of the batches."""
    share = batches[process.rank :: process.world_size]
    loader = DataLoader(
        crops,
        batch_sampler=share,
        num_workers=settings.workers,
        worker_init_fn=initialise_worker,
        pin_memory=process.device.type == "cuda",
    )
    landmarks = []

    def images() -> Iterator[Tensor]:
        for batch, true in loader:
            landmarks.append(true)
            yield batch
            if settings.flip:
                yield batch.flip(3)

    outputs = predict(model, images(), settings.precision, engine)
    predictions = []
    with progress_bar(sum(map(len, share)), "face", shown=process.rank == 0) as progress:
        for output in outputs:
            found = to_predictions(output, landmarks[-1], model.config)
            if settings.flip:
                mirrored = next(outputs).keypoints.cpu().double().numpy()
                found = replace(found, keypoints=mean_with_mirrored(found.keypoints, mirrored, crops.size))
            predictions.append(found)
            progress.update(len(landmarks[-1]))
    return predictions


def to_predictions(output: LDEQOutput, landmarks: Tensor, config: LDEQConfig) -> Predictions:
    """The predictions of a batch, without heatmaps and states."""
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


def write_evaluation(evaluation: FaceEvaluation, settings: FaceSettings) -> None:
    """Write the predictions, the scores, the table and the figures into the output folder.

    Raises:
        OutputError: If a file cannot be written.
    """
    folder, data, plan = settings.output_folder, evaluation.data, evaluation.plan
    names = np.array([data.faces[face].name for face in plan.faces])
    views = {f"rows_{split}": rows for split, rows in plan.views.items()}
    write_predictions(folder / "predictions.npz", evaluation.predictions, image=names, face=plan.faces, **views)
    conditions = evaluation.conditions(settings)
    write_json(
        folder / "results.json",
        {
            "evaluated": conditions.text,
            "benchmark": conditions.benchmark,
            "splits": {split: asdict(score) for split, score in evaluation.scores.items()},
            "units": UNITS,
            "solves": summarise_solves(evaluation.predictions, plan.views["test"]),
            "failed": evaluation.failed,
            "settings": evaluation.settings,
        },
    )
    write_csv(folder / "per_face.csv", per_face_table(evaluation.predictions, evaluation.nmes, data, plan))
    title = f"Cumulative error of {settings.landmark_model_weights.name}\n{conditions.text}"
    curves = error_curves({split: evaluation.nmes[rows] for split, rows in plan.views.items()}, title)
    save_figure(curves, folder / "cumulative_error.png")
    if settings.plot and np.isfinite(evaluation.nmes[plan.views["test"]]).any():
        save_figure(draw_faces(evaluation, settings.plot), folder / "faces.png")


def format_evaluation(evaluation: FaceEvaluation, settings: FaceSettings) -> str:
    """The printed text: the original's lines between two lines that name the data; then a table."""
    conditions, solves = (
        evaluation.conditions(settings).text,
        summarise_solves(evaluation.predictions, evaluation.plan.views["test"]),
    )
    scores = evaluation.scores
    lines = [f"{conditions}\n", *(f"{score.lines(split)}\n" for split, score in scores.items())]
    lines += [conditions, format_scores(scores), ""]
    if solves["converged_percent"] is not None:
        lines.append(
            f"{solves['mean_evaluations']:.2f} evaluations per face, {solves['converged_percent']:.1f} % converged"
        )
    data = evaluation.data
    lines.append(f"Layout: {data.layout}" + (f", faces cropped by their {data.raw_box}" if data.raw_box else ""))
    return "\n".join(lines)


def per_face_table(
    predictions: Predictions, nmes: np.ndarray, data: WFLWTest, plan: InferencePlan
) -> dict[str, Sequence[Any]]:
    """The columns of per_face.csv: every face once, with its first prediction, which is that of `test`."""
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
        "uncertainty_percent_of_crop": 100 * predictions.uncertainty[first].mean(axis=1),
    }


def summarise_solves(predictions: Predictions, rows: np.ndarray) -> dict[str, float | None]:
    """Mean number of evaluations and share of converged solves; an explicit network has no solves to converge."""
    status = predictions.status[rows]
    explicit = np.all(status == EXPLICIT)
    return {
        "mean_evaluations": float(predictions.evaluations[rows].mean()),
        "converged_percent": None if explicit else float(100 * np.mean(status == status_text(Status.CONVERGED))),
    }


def describe_run(
    settings: FaceSettings, model: LDEQ, engine: Engine, data: WFLWTest, process: Process
) -> dict[str, Any]:
    """Everything that the numbers depend on, as plain values."""
    implicit = model.config.mode == "implicit"
    return {
        "weights": str(settings.landmark_model_weights),
        "dataset": str(settings.dataset_path),
        "layout": data.layout,
        "raw_box": data.raw_box,
        "precision": settings.precision,
        "flip": settings.flip,
        "engine": engine.name,
        "stop_rule": settings.stop_rule if implicit else None,
        "solver": model.config.to_dict()["solver"] if implicit else None,
        "batch_size": settings.batch_size,
        "device": process.device.type,
        "processes": process.world_size,
        "torch": torch.__version__,
    }


def draw_faces(evaluation: FaceEvaluation, count: int) -> Figure:
    """The `count` worst and the `count` median faces of `test` on a contact sheet."""
    plan, predictions, nmes = evaluation.plan, evaluation.predictions, evaluation.nmes
    test = plan.views["test"]
    test = test[~predictions.failed[test]]
    groups = {
        f"{title} {chosen.size} of {test.size} test faces": [
            Panel(
                f"{Path(evaluation.data.faces[plan.faces[row]].name).name}\nNME {100 * nmes[row]:.1f} %",
                evaluation.crops.crop(plan.faces[row])[0],
                predictions.keypoints[row],
                predictions.landmarks[row],
            )
            for row in test[chosen]
        ]
        for title, chosen in select_faces(nmes[test], count).items()
        if chosen.size
    }
    return contact_sheet(groups)


def select_faces(nmes: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Positions of the faces with the highest errors, worst first, and of the others around the median."""
    order = np.argsort(-nmes, kind="stable")
    start = max(0, (len(order) - count) // 2)
    return {"Worst": order[:count], "Median": order[max(start, count) : start + count]}
