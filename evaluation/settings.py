"""What the two evaluation scripts are told. Nothing here loads torch."""

from dataclasses import dataclass
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[1] / "datasets" / "sample"
"""The faces and clips that ship."""

RAW_BOXES = ("landmarks", "rectangle")

CLIP_SPLITS = ("easy", "hard", "all")


@dataclass(frozen=True, kw_only=True)
class FaceSettings:
    """Of the WFLW benchmark; the fields have the names of the options of `test_LDEQ_WFLW.py`.

    Attributes:
        landmark_model_weights: Checkpoint.
        dataset_path: Folder of WFLW.
        raw_box: One of `RAW_BOXES`, see `datasets.wflw.read_faces`.
        workers: Processes that read faces.
        batch_size: Faces that are solved together.
        device: See `inference.network.resolve_device`.
        precision: See `inference.engines.autocast`.
        engine: See `inference.engines.open_engine`.
        threads: Cores to use; None leaves that to PyTorch.
        stop_rule: Whether each face or a whole batch decides when its solve stops.
        solver: Another solver than the checkpoint's.
        max_evals: Another budget of the solver.
        tol: Another tolerance.
        flip: Whether the landmarks are the mean with those of the mirrored face.
        output_folder: Where results go.
        plot: How many of the worst and of the median faces are drawn.
    """

    landmark_model_weights: Path
    dataset_path: Path
    raw_box: str
    workers: int
    batch_size: int
    device: str
    precision: str
    engine: str
    threads: int | None
    stop_rule: str
    solver: str | None
    max_evals: int | None
    tol: float | None
    flip: bool
    output_folder: Path
    plot: int


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """Of the video evaluation; the fields have the names of the options of `test_LDEQ_WFLW_V.py`.

    Attributes:
        landmark_model_weights: Checkpoint.
        WFLW_V_dataset_path: Folder of WFLW-V.
        WFLW_V_split: One of `CLIP_SPLITS`.
        rwr: Whether the printed numbers are those of RwR.
        rwr_max_iters: Evaluations of the cell a frame under RwR, besides the final one.
        rwr_take_one_less_inference_step: Whether the final one is left out.
        rwr_variant: Name of one of `models.rwr.VARIANTS`.
        crop: Name of one of `utils.crops.CROP_RULES`.
        WFLW_V_batch_size: Clips side by side.
        WFLW_V_workers: Processes that decode clips.
        verbose_solver: Whether a line a frame is printed.
        device: See `inference.network.resolve_device`.
        precision: See `inference.engines.autocast`.
        engine: See `inference.engines.open_engine`.
        threads: Cores to use; None leaves that to PyTorch.
        stop_rule: Whether, without RwR, each frame or the frames side by side decide when a solve stops.
        output_folder: Where results go.
        resume: Whether clips that an earlier run has finished are kept.
        compare: Whether RwR, no RwR and temporal filters are compared.
        tuning_ids: Clips that filters are tuned on, or a file that lists them; None for an even choice.
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
    precision: str
    engine: str
    threads: int | None
    stop_rule: str
    output_folder: Path
    resume: bool
    compare: bool
    tuning_ids: tuple[str, ...] | None
    plot: bool
    save_video: bool
