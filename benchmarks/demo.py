"""Speed of the demo on one face, and the time of each stage: decoding, detection, crop, network, drawing.

python benchmarks/demo.py                                    # a sample clip, enlarged to 640 x 480
python benchmarks/demo.py --video clip.mp4 --threads 2 --engine torch
python benchmarks/demo.py --demo_faces 5                     # five copies of the clip in a frame

It runs the demo's loop with RwR, one stage after another. The demo itself overlaps the stages; `benchmarks/scripts.py`
measures that. Detection is timed inside the loop. The crop is timed separately on the same boxes. The rest of a step is
the network. Encoding the overlay is not measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # A script's own folder comes first on the path; `solvers` there would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.clips import SIZE, make_clip
from benchmarks.measuring import add_measuring_options, machine
from evaluation.settings import SAMPLE
from inference.options import RWR_VARIANTS, add_engine_options, add_machine_options, add_weights_option
from utils.command_line import given_path, positive_integer, run, script_parser

if TYPE_CHECKING:
    import numpy as np

    from inference.detector import FaceDetector

WARM_UP_FRAMES = 16
STAGES = ("decoding", "detection", "crop", "network", "drawing")


class TimedDetector:
    """A detector that measures its own time."""

    def __init__(self, detector: FaceDetector):
        self.detector = detector
        self.seconds = 0.0

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
        started = time.perf_counter()
        boxes = self.detector.detect(frame)
        self.seconds += time.perf_counter() - started
        return boxes


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    add_weights_option(parser)
    parser.add_argument(
        "--video", type=given_path, help="a video (default: hopper_easy of the sample, enlarged to 640 x 480)"
    )
    parser.add_argument("--demo_faces", type=positive_integer, default=1, help="copies of the sample clip in a frame")
    parser.add_argument("--rwr_variant", choices=RWR_VARIANTS, default="steady")
    add_machine_options(parser)
    add_engine_options(parser)
    add_measuring_options(parser, repeats=3)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse_arguments()
    from inference.network import resolve_device
    from utils.sources import silence_opencv

    silence_opencv()
    with tempfile.TemporaryDirectory() as folder:
        sample = SAMPLE / "videos" / "hopper_easy.mp4"
        video = args.video or make_clip(sample, Path(folder) / "clip.mp4", SIZE, args.demo_faces)
        seconds = measure(video, args)
    print(machine(resolve_device(args.device)))
    total = sum(seconds[stage] for stage in STAGES)
    for stage in STAGES:
        print(f"{stage:10} {1000 * seconds[stage]:8.2f} ms a frame {100 * seconds[stage] / total:6.1f} %")
    print(f"{'all':10} {1000 * total:8.2f} ms a frame, {1 / total:.1f} frames a second")
    print(f"{seconds['faces']:.2f} faces a frame")


def measure(video: Path, args: argparse.Namespace) -> dict[str, float]:
    """Seconds a frame of every stage, and the mean number of faces."""
    import numpy as np

    from inference.detector import CenterFaceDetector
    from inference.face_tracker import FaceTracker
    from inference.landmark_tracker import TRACKING
    from inference.network import load_network, resolve_device, use_threads
    from inference.predictor import crop_faces
    from models.rwr import VARIANTS
    from utils.drawing import draw_faces
    from utils.landmark_groups import NUM_LANDMARKS
    from utils.sources import open_source, read_frames

    use_threads(args.threads)
    model = load_network(args.landmark_model_weights, resolve_device(args.device), NUM_LANDMARKS, "sample")
    config = replace(TRACKING["steady"], rwr=VARIANTS[args.rwr_variant])
    detector = TimedDetector(CenterFaceDetector())
    follower = FaceTracker(model, config, detector=detector, precision=args.precision, engine=args.engine)
    sums = dict.fromkeys((*STAGES, "faces"), 0.0)
    frames = 0
    for repeat in range(args.repeats + 1):
        follower.reset()
        stream = read_frames(open_source(str(video)))
        for number in range(sys.maxsize):
            started = time.perf_counter()
            frame = next(stream, None)
            if frame is None:
                break
            decoded = time.perf_counter()
            detector.seconds = 0.0
            faces = follower.step(frame)
            followed = time.perf_counter()
            draw_faces(frame, [face.landmarks for face in faces])
            drawn = time.perf_counter()
            if faces:
                boxes = np.array([face.box for face in faces])
                crop_faces(frame, boxes, model.config.image_size, "bgr", config.crop)
            crop = time.perf_counter() - drawn
            # The first pass is a warm-up.
            if repeat == 0 and number < WARM_UP_FRAMES:
                continue
            if repeat == 0:
                break
            frames += 1
            sums["decoding"] += decoded - started
            sums["detection"] += detector.seconds
            sums["crop"] += crop
            sums["network"] += followed - decoded - detector.seconds - crop
            sums["drawing"] += drawn - followed
            sums["faces"] += len(faces)
    return {name: value / frames for name, value in sums.items()}


if __name__ == "__main__":
    sys.exit(run(main))
