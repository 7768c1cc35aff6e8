"""The settings of the two evaluation scripts. Nothing here loads torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference.engines import EngineName, Precision
    from solvers.contract import StopRule

SAMPLE = Path(__file__).resolve().parents[1] / "datasets" / "sample"
"""The shipped faces and clips."""

RAW_BOXES = ("landmarks", "rectangle")

CLIP_SPLITS = ("easy", "hard", "all")


@dataclass(frozen=True, kw_only=True)
class FaceSettings:
    """Settings of the WFLW benchmark; the fields have the names of the options of `test_LDEQ_WFLW.py`.

    Attributes:
        landmark_model_weights: Checkpoint.
        dataset_path: Folder of WFLW.
        raw_box: One of `RAW_BOXES`, or None, see `datasets.wflw.read_faces`.
        workers: Processes that read faces.
        batch_size: Faces that are solved together.
        device: See `inference.network.resolve_device`.
        precision: See `inference.engines.autocast`.
        engine: See `inference.engines.open_engine`.
        threads: Cores to use; None leaves that to PyTorch.
        stop_rule: "sample" stops each face on its own residual, "batch" a whole batch at once.
        solver: Name of the solver; None for the checkpoint's.
        max_evals: Budget of the solver; None for the checkpoint's.
        tol: Tolerance; None for the checkpoint's.
        flip: Whether the landmarks are the mean with those of the mirrored face.
        output_folder: Folder of the results.
        plot: Number of worst faces, and of median faces, to draw.
    """

    landmark_model_weights: Path
    dataset_path: Path
    raw_box: str | None
    workers: int
    batch_size: int
    device: str
    precision: "Precision"
    engine: "EngineName"
    threads: int | None
    stop_rule: "StopRule"
    solver: str | None
    max_evals: int | None
    tol: float | None
    flip: bool
    output_folder: Path
    plot: int


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """Settings of the video evaluation; the fields have the names of the options of `test_LDEQ_WFLW_V.py`.

    Attributes:
        landmark_model_weights: Checkpoint.
        WFLW_V_dataset_path: Folder of WFLW-V.
        WFLW_V_split: One of `CLIP_SPLITS`.
        rwr: Whether the printed numbers are those of RwR.
        rwr_max_iters: Evaluations of the cell per frame under RwR, without the final one.
        rwr_take_one_less_inference_step: Whether the final evaluation is left out.
        rwr_variant: Name of one of `models.rwr.VARIANTS`.
        crop: Name of one of `utils.crops.CROP_RULES`.
        WFLW_V_batch_size: Clips in parallel.
        WFLW_V_workers: Processes that decode clips.
        verbose_solver: Whether one line per frame is printed.
        device: See `inference.network.resolve_device`.
        precision: See `inference.engines.autocast`.
        engine: See `inference.engines.open_engine`.
        threads: Cores to use; None leaves that to PyTorch.
        stop_rule: Without RwR, "sample" stops each frame on its own residual, "batch" the parallel frames at once.
        output_folder: Folder of the results.
        resume: Whether clips that an earlier run finished are kept.
        compare: Whether RwR, no RwR and temporal filters are compared.
        tuning_ids: Clips for tuning the filters, or a file that lists them; None for an even choice.
        plot: Whether clips and convergence are plotted.
        save_video: Whether clips are written with their landmarks.
    """

    landmark_model_weights: Path
    WFLW_V_dataset_path: Path
    WFLW_V_split: str
    rwr: bool
    rwr_max_iters: int
    rwr_take_one_less_inference_step: bool
    rwr_variant: str
    crop: str
    WFLW_V_batch_size: int
    WFLW_V_workers: int
    verbose_solver: bool
    device: str
    precision: "Precision"
    engine: "EngineName"
    threads: int | None
    stop_rule: "StopRule"
    output_folder: Path
    resume: bool
    compare: bool
    tuning_ids: tuple[str, ...] | None
    plot: bool
    save_video: bool
