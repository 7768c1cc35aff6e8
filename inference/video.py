"""The demo of a video: its faces are followed from frame to frame, written, drawn and shown."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain

import numpy as np
from tqdm import tqdm

from inference.detector import CenterFaceDetector
from inference.engines import Engine
from inference.faces import Face, FaceTracker
from inference.jobs import DemoSettings, Job
from inference.landmark_files import LandmarkWriter, read_boxes
from inference.pictures import (
    check_box_frames,
    counted,
    draw,
    given_boxes,
    report_failed,
    report_no_face,
    show,
    write_faces,
)
from inference.streams import RestartRule
from inference.tracker import BoxTracker, TrackingConfig
from models.ldeq import LDEQ
from models.rwr import VARIANTS
from utils.crops import CROP_RULES, CropRule
from utils.landmark_groups import NUM_LANDMARKS
from utils.pipeline import ReadAhead, WriteBehind
from utils.side_by_side import SideBySide
from utils.sources import Source, read_frames, read_picture
from utils.writers import open_writer

FRAMES_AHEAD = 8
"""Frames that may wait to be inferred, and as many to be written."""

ON_ITS_OWN = "every frame on its own"

TITLES = {"faithful": "RwR", "damped": "RwR damped (ours)", "steady": "RwR steady (ours)"}


def run_video(job: Job, model: LDEQ, engine: Engine, settings: DemoSettings) -> int:
    """A video, from frame to frame; Ctrl-C ends it and keeps what is done. Returns the exit status: 1 if a face failed.

    Raises:
        InputError: It does not open or decode, or the boxes are not those of its frames.
        OutputError: A result cannot be written.
    """
    source = job.source
    config = tracking_config(settings)
    find = _finder(job, model, engine, settings, config)
    others = _other_methods(model, engine, settings, config) if settings.compare else {}
    comparison = SideBySide([*others, _title(settings)]) if settings.compare else None
    numbers, count, failed, started, ended = set(), 0, 0, time.monotonic(), True
    depth = 1 if source.kind == "webcam" else FRAMES_AHEAD
    with ExitStack() as stack:
        extra = ("image",) if source.kind == "folder" else ()
        writer = stack.enter_context(LandmarkWriter(job.landmarks, NUM_LANDMARKS, extra))
        overlays = stack.enter_context(open_writer(job.overlays[0], source.rate)) if job.overlays else None

        def finish(number: int, frame: np.ndarray, faces: dict[str, list[Face]]) -> np.ndarray | None:
            """Write what was found in a frame, and return the overlay."""
            found = faces[_title(settings)]
            write_faces(writer, number, found, {"image": job.names[number]} if extra else {})
            if comparison:
                overlay = comparison.draw(
                    frame,
                    {
                        title: {face.number: face.landmarks.landmarks for face in of_method}
                        for title, of_method in faces.items()
                    },
                )
            elif overlays or settings.show:
                overlay = draw(frame, found)
            else:
                return None
            if overlays:
                overlays.write(overlay)
            return overlay

        frames = iter(stack.enter_context(ReadAhead(video_frames(source), depth)))
        behind = stack.enter_context(WriteBehind(lambda found: finish(*found), depth))
        # A source that does not open says so before there is a progress bar.
        first = next(frames)
        try:
            for number, frame in enumerate(tqdm(chain([first], frames), total=source.frames, unit="frame")):
                faces = find(number, frame)
                boxes = {face.number: face.landmarks.box for face in faces}
                by_method = {
                    title: [Face(*found) for found in tracker.step(frame, boxes).items()]
                    for title, tracker in others.items()
                }
                by_method[_title(settings)] = faces
                count, failed = number + 1, failed + sum(face.landmarks.failed for face in faces)
                numbers |= set(boxes)
                if not settings.show:
                    behind.put((number, frame, by_method))
                # A window belongs to the main thread.
                elif show(source.name, finish(number, frame, by_method)):
                    ended = False
                    break
        except KeyboardInterrupt:
            ended = False
            print("\nended by Ctrl-C", file=sys.stderr)
        if settings.boxes and ended:
            check_box_frames(settings.boxes, read_boxes(settings.boxes), count)
    seconds = time.monotonic() - started
    print(f"{counted(len(numbers), 'face')} in {counted(count, 'frame')}, {count / seconds:.1f} frames a second")
    report_no_face([] if numbers else [str(source.paths[0]) if source.paths else source.name], settings)
    if comparison:
        for title, meter in comparison.meters.items():
            print(f"jitter, {title}: {meter.mean:.2f} % of the face")
    return int(report_failed(failed))


def video_frames(source: Source) -> Iterator[np.ndarray]:
    """The frames of a video, or the pictures of a folder one after another."""
    if source.kind == "folder":
        yield from map(read_picture, source.paths)
    else:
        yield from read_frames(source)


def tracking_config(settings: DemoSettings) -> TrackingConfig:
    """How the faces of a video are followed."""
    return TrackingConfig(
        rwr=VARIANTS[settings.rwr_variant] if settings.rwr else None,
        solve_first_frame=settings.solve_first_frame,
        restart=RestartRule() if settings.restart else None,
        crop=CROP_RULES["exact" if settings.cropped else settings.crop],
    )


def _title(settings: DemoSettings) -> str:
    return TITLES[settings.rwr_variant]


def _other_methods(
    model: LDEQ, engine: Engine, settings: DemoSettings, config: TrackingConfig
) -> dict[str, BoxTracker]:
    """What is shown beside the chosen variant, on its very crops, so that nothing else differs."""
    config = replace(config, crop=CropRule(exact=config.crop.exact))
    others = {ON_ITS_OWN: BoxTracker(model, replace(config, rwr=None), engine=engine)}
    if settings.rwr_variant != "faithful":
        others[TITLES["faithful"]] = BoxTracker(model, replace(config, rwr=VARIANTS["faithful"]), engine=engine)
    return others


def _finder(
    job: Job, model: LDEQ, engine: Engine, settings: DemoSettings, config: TrackingConfig
) -> Callable[[int, np.ndarray], list[Face]]:
    """What gives the faces of the next frame, from its number and its picture."""
    tracker = FaceTracker(model, config, engine=engine)
    if settings.boxes or settings.cropped:
        # A video's own count of its frames may be off by a few; they are counted at the end.
        boxes_of = given_boxes(settings, len(job.source.paths) if job.source.kind == "folder" else None)
        return lambda number, frame: tracker.step(frame, boxes_of(number, frame))
    tracker.detector = CenterFaceDetector("video", settings.detection_threshold, settings.min_face)
    return lambda number, frame: tracker.step(frame)
