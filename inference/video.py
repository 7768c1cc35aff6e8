"""The demo of a video: its faces are followed from frame to frame, written, drawn and shown."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import Any

import numpy as np

from inference.comparison import MethodComparison
from inference.detector import CenterFaceDetector
from inference.engines import Engine
from inference.face_tracker import FaceTracker
from inference.jobs import DemoSettings, Job
from inference.landmark_files import LandmarkWriter, read_boxes
from inference.landmark_tracker import TrackingConfig
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
from inference.results import Face
from inference.streams import RestartRule
from models.ldeq import LDEQ
from models.rwr import VARIANTS
from utils.crops import CROP_RULES
from utils.landmark_groups import NUM_LANDMARKS
from utils.pipeline import ReadAhead, WriteBehind
from utils.progress import progress_bar
from utils.sources import Source, read_frames, read_picture
from utils.writers import open_writer

FRAMES_AHEAD = 8
"""Most frames that wait for inference, and most that wait for writing."""

Compared = dict[str, dict[int, np.ndarray]]


def run_video(job: Job, model: LDEQ, engine: Engine, settings: DemoSettings) -> int:
    """Run the demo on a video; Ctrl-C ends it and keeps the results. Returns the exit status: 1 if a face failed.

    Raises:
        KeyboardInterrupt: After Ctrl-C, once the results are written; a webcam ends with Ctrl-C as it should.
        InputError: If it cannot be opened or decoded, or the boxes do not fit its frames.
        OutputError: If a result cannot be written.
    """
    source = job.source
    config = tracking_config(settings)
    find = _finder(job, model, engine, settings, config)
    # The same crops as the demo, so that only the method differs.
    exact = config.crop.exact
    comparison = MethodComparison(model, settings.precision, engine, exact) if settings.compare else None
    numbers, count, failed, started, ended, interrupted = set(), 0, 0, time.monotonic(), True, False
    depth = 1 if source.kind == "webcam" else FRAMES_AHEAD
    with ExitStack() as stack:
        extra = ("image",) if source.kind == "folder" else ()
        writer = stack.enter_context(LandmarkWriter(job.landmarks, NUM_LANDMARKS, extra))
        overlays = stack.enter_context(open_writer(job.overlays[0], source.rate)) if job.overlays else None

        def finish(number: int, frame: np.ndarray, faces: list[Face], compared: Compared) -> np.ndarray | None:
            """Write the results of a frame, and return the overlay."""
            write_faces(writer, number, faces, {"image": job.names[number]} if extra else {})
            if not (overlays or settings.show or comparison):
                return None
            overlay = comparison.pictures.draw(frame, compared) if comparison else draw(frame, faces)
            if overlays:
                overlays.write(overlay)
            return overlay

        frames = iter(stack.enter_context(ReadAhead(video_frames(source), depth)))
        behind: WriteBehind[Any] = stack.enter_context(WriteBehind(lambda found: finish(*found), depth))
        # A source that does not open is reported before the progress bar appears.
        first = next(frames)
        try:
            for number, frame in enumerate(progress_bar(source.frames, "frame", items=chain([first], frames))):
                faces = find(number, frame)
                boxes = {face.number: face.box for face in faces}
                compared = comparison.step(frame, boxes) if comparison else {}
                count, failed = number + 1, failed + sum(face.failed for face in faces)
                numbers |= set(boxes)
                if not settings.show:
                    behind.put((number, frame, faces, compared))
                    continue
                overlay = finish(number, frame, faces, compared)
                # Windows work only in the main thread.
                if overlay is not None and show(source.name, overlay):
                    ended = False
                    break
        except KeyboardInterrupt:
            ended, interrupted = False, source.kind != "webcam"
            print(f"\nended by Ctrl-C after {counted(count, 'frame')}", file=sys.stderr)
        if settings.boxes and ended:
            check_box_frames(settings.boxes, read_boxes(settings.boxes), count)
    seconds = time.monotonic() - started
    print(f"{counted(len(numbers), 'face')} in {counted(count, 'frame')}, {count / seconds:.1f} frames a second")
    report_no_face([] if numbers else [str(source.paths[0]) if source.paths else source.name], settings)
    for title, jitter in (comparison.jitter if comparison else {}).items():
        print(f"jitter, {title}: {jitter:.2f} % of the face")
    if interrupted:
        raise KeyboardInterrupt
    return int(report_failed(failed))


def video_frames(source: Source) -> Iterator[np.ndarray]:
    """The frames of a video, or the pictures of a folder one after another."""
    if source.kind == "folder":
        yield from map(read_picture, source.paths)
    else:
        yield from read_frames(source)


def tracking_config(settings: DemoSettings) -> TrackingConfig:
    """The tracking configuration of the settings."""
    return TrackingConfig(
        rwr=VARIANTS[settings.rwr_variant] if settings.rwr else None,
        solve_first_frame=settings.solve_first_frame,
        restart=RestartRule() if settings.restart else None,
        crop=CROP_RULES["exact" if settings.cropped else settings.crop],
    )


def _finder(
    job: Job, model: LDEQ, engine: Engine, settings: DemoSettings, config: TrackingConfig
) -> Callable[[int, np.ndarray], list[Face]]:
    """A function from the number and picture of the next frame to its faces."""
    tracker = FaceTracker(model, config, engine=engine)
    if settings.boxes or settings.cropped:
        # A video's own count of its frames may be off by a few; they are counted at the end.
        boxes_of = given_boxes(settings, config.crop, len(job.source.paths) if job.source.kind == "folder" else None)
        return lambda number, frame: tracker.step(frame, boxes_of(number, frame))
    tracker.detector = CenterFaceDetector("video", settings.detection_threshold, settings.min_face)
    return lambda number, frame: tracker.step(frame)
