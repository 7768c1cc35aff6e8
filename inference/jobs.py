"""The settings of the demo, and its jobs: the inputs, and the files for the results of each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import InputError, OptionError
from utils.files import check_places, protect_inputs
from utils.sources import ASSUMED_RATE, Source, open_source
from utils.writers import ANIMATION_SUFFIXES, PICTURE_SUFFIXES, VIDEO_SUFFIXES, check_suffix

if TYPE_CHECKING:
    from inference.engines import EngineName, Precision

RESULTS = Path("results") / "demo"


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """The options of `demo.py`, under their names.

    Attributes:
        inputs: pictures, folders, videos, indices of webcams.
        sequence: whether the pictures of a folder are the frames of a video.
        landmarks: file of the landmarks; None for a file in `RESULTS`.
        save: file or folder of the overlays; None for none.
        show: whether overlays are shown in a window.
        compare: whether methods are shown side by side.
        boxes: file of the boxes of the faces; None to detect them.
        cropped: whether every picture is the crop of one face.
        detection_threshold: lowest score of a detection.
        min_face: longer side in pixels of the smallest face to look for; None, see `CenterFaceDetector`.
        rwr: whether the solve of a video frame starts from the solution of the previous frame.
        rwr_variant: see `models.rwr.VARIANTS`.
        crop: see `utils.crops.CROP_RULES`.
        solve_first_frame: whether a first frame gets a full solve.
        restart: whether a cut counts as a first frame.
        landmark_model_weights: checkpoint.
        device: see `inference.network.resolve_device`.
        precision: see `inference.engines.autocast`.
        engine: see `inference.engines.open_engine`.
        threads: cores to use; None leaves the number to PyTorch.
    """

    inputs: Sequence[str]
    sequence: bool
    landmarks: Path | None
    save: Path | None
    show: bool
    compare: bool
    boxes: Path | None
    cropped: bool
    detection_threshold: float
    min_face: float | None
    rwr: bool
    rwr_variant: str
    crop: str
    solve_first_frame: bool
    restart: bool
    landmark_model_weights: Path
    device: str
    precision: "Precision"
    engine: "EngineName"
    threads: int | None


@dataclass(frozen=True)
class Job:
    """One video, or all the pictures, and the files for the results.

    Attributes:
        source: the input; the pictures of several inputs are one source.
        as_video: whether its faces are followed from frame to frame.
        names: names of the pictures in the landmark file; empty for a video or a single picture.
        landmarks: file of the landmarks.
        overlays: file of the overlay, or one file for every picture; empty for none.
    """

    source: Source
    as_video: bool
    names: tuple[str, ...]
    landmarks: Path
    overlays: tuple[Path, ...]


def plan_jobs(settings: DemoSettings) -> list[Job]:
    """Open the inputs, and choose the files of all results before any is written.

    Raises:
        InputError: If an input is missing or empty, or does not fit the options.
        OptionError: If options exclude each other.
        OutputError: If a result would replace an input or another result, or its suffix is of another kind.
    """
    texts = list(dict.fromkeys(settings.inputs))
    sources = [open_source(text) for text in texts]
    film = ("video", "webcam", "folder") if settings.sequence else ("video", "webcam")
    moving = [source.kind in film for source in sources]
    _check_options(settings, texts, sources, moving)
    planned = [(source, True) for source, moves in zip(sources, moving, strict=True) if moves]
    pictures = _join([source for source, moves in zip(sources, moving, strict=True) if not moves])
    if pictures:
        planned.insert(0, (pictures, False))
    if len(planned) > 1 and (settings.landmarks or settings.boxes):
        option = "--landmarks" if settings.landmarks else "--boxes"
        raise OptionError(f"{option} needs one video or pictures; run the demo for each video separately")
    jobs = [_plan(source, as_video, len(planned) > 1, settings) for source, as_video in planned]
    outputs = [path for job in jobs for path in (job.landmarks, *job.overlays)]
    inputs = [path for source in sources for path in source.paths]
    given = [settings.landmark_model_weights, *([settings.boxes] if settings.boxes else [])]
    protect_inputs(outputs, [*inputs, *given])
    check_places(outputs)
    return jobs


def _check_options(
    settings: DemoSettings, texts: Sequence[str], sources: Sequence[Source], moving: Sequence[bool]
) -> None:
    kinds = {source.kind for source in sources}
    for text, source in zip(texts, sources, strict=True):
        if settings.sequence and source.kind != "folder":
            raise InputError(f"{text}: --sequence needs a folder of pictures; leave it out")
    if settings.compare and not (all(moving) and settings.rwr):
        raise OptionError("--compare needs a video and excludes --rwr false; leave one out")
    if settings.boxes and "webcam" in kinds:
        raise OptionError("--boxes does not work with a webcam; leave it out, or give a file")


def _join(sources: Sequence[Source]) -> Source | None:
    """All pictures as one source, each of them once."""
    if len(sources) <= 1:
        return sources[0] if sources else None
    paths = {path.resolve(): path for source in reversed(sources) for path in reversed(source.paths)}
    pictures = tuple(reversed(paths.values()))
    return Source("folder", "pictures", pictures, ASSUMED_RATE, len(pictures))


def _plan(source: Source, as_video: bool, several: bool, settings: DemoSettings) -> Job:
    names = _short_names(source.paths) if source.kind == "folder" else ()
    landmarks = settings.landmarks or RESULTS / f"{_result_name(source)}.jsonl"
    overlays: tuple[Path, ...] = ()
    if settings.save and as_video:
        save = settings.save / f"{_result_name(source)}.mp4" if several else settings.save
        overlays = (check_suffix(save, VIDEO_SUFFIXES + ANIMATION_SUFFIXES, "a video"),)
    elif settings.save and source.kind == "folder":
        overlays = _overlay_paths(settings.save, names)
    elif settings.save:
        save = settings.save / f"{_result_name(source)}.png" if several else settings.save
        overlays = (check_suffix(save, PICTURE_SUFFIXES, "a picture"),)
    return Job(source, as_video, names, landmarks, overlays)


def _result_name(source: Source) -> Path:
    """The name of a source's results in a folder: its path below the working folder, so that all names differ."""
    if not source.paths:
        return Path(source.name)
    if source.kind != "folder":
        return _below(source.paths[0])
    folder = _below(Path(os.path.commonpath([path.parent.absolute() for path in source.paths])))
    # "pictures" for a list of pictures, the folder's name for a folder.
    return folder / "pictures" if source.name == "pictures" else folder if folder.name else Path(source.name)


def _below(path: Path) -> Path:
    """A path relative to the working folder, or else to the root, without ".." parts."""
    # The path is not resolved, so that a link keeps its name.
    whole, here = Path(os.path.normpath(path.absolute())), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole.relative_to(whole.anchor)


def _short_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Distinct names of pictures: their paths below the folder that holds them all."""
    whole = [Path(os.path.normpath(path.absolute())) for path in paths]
    folder = os.path.commonpath([path.parent for path in whole])
    return tuple(path.relative_to(folder).as_posix() for path in whole)


def _overlay_paths(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """A name for the overlay of every picture; PNG if the picture's own format cannot be written."""
    taken = {name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES}
    found = []
    for name in names:
        if name not in taken:
            name = f"{name}.png"
            while name in taken:
                name = f"{name.removesuffix('.png')}.overlay.png"
            taken.add(name)
        found.append(folder / name)
    return tuple(found)
