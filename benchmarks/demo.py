"""How fast the demo is on one face, and where the time goes: decoding, detection, crop, network, drawing.

python benchmarks/demo.py                                    # a sample clip, enlarged to 640 x 480
python benchmarks/demo.py --video clip.mp4 --threads 2

The whole is the demo's loop with RwR on. Detection and network are timed inside it; the crop is timed on the same boxes
once more, outside the whole, and what is left of a step without detection and crop is the network. Encoding the overlay
is not part of it.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    # A script's own folder comes first on the path, and there `solvers` would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np
import torch

from datasets.wflw import NUM_LANDMARKS
from inference.detector import CenterFaceDetector, FaceDetector
from inference.faces import FaceTracker
from inference.network import load_network, resolve_device
from inference.options import add_machine_options, add_weights_option
from inference.predictor import crop_faces
from inference.tracker import TRACKING
from models.rwr import VARIANTS
from utils.command_line import positive_integer, run
from utils.drawing import draw_faces
from utils.sources import open_source, read_frames, silence_opencv
from utils.writers import VideoWriter

ROOT = Path(__file__).resolve().parents[1]
SIZE = (640, 480)
WARM_UP_FRAMES = 16
STAGES = ("decoding", "detection", "crop", "network", "drawing")


class TimedDetector:
    """A detector that knows how long it has taken."""

    def __init__(self, detector: FaceDetector):
        self.detector = detector
        self.seconds = 0.0

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
        started = time.perf_counter()
        boxes = self.detector.detect(frame)
        self.seconds += time.perf_counter() - started
        return boxes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_weights_option(parser)
    parser.add_argument("--video", type=Path, help="(default: hopper_easy of the sample, enlarged to 640 x 480)")
    parser.add_argument("--rwr_variant", choices=VARIANTS, default="steady")
    parser.add_argument("--threads", type=positive_integer, default=2, help="of the network and of OpenCV each")
    parser.add_argument("--repeats", type=positive_integer, default=3, help="how often the video is run")
    add_machine_options(parser)
    args = parser.parse_args()

    silence_opencv()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        video = args.video or enlarge(
            ROOT / "datasets" / "sample" / "videos" / "hopper_easy.mp4", Path(folder) / "clip.mp4"
        )
        seconds = measure(video, args)
    total = sum(seconds[stage] for stage in STAGES)
    for stage in STAGES:
        print(f"{stage:10} {1000 * seconds[stage]:8.2f} ms a frame {100 * seconds[stage] / total:6.1f} %")
    print(f"{'all':10} {1000 * total:8.2f} ms a frame, {1 / total:.1f} frames a second, {args.threads} threads")
    print(f"{seconds['faces']:.2f} faces a frame")


def enlarge(video: Path, enlarged: Path) -> Path:
    """Write a video in another size."""
    source = open_source(str(video))
    with VideoWriter(enlarged, source.rate) as writer:
        for frame in read_frames(source):
            writer.write(cv2.resize(frame, SIZE, interpolation=cv2.INTER_CUBIC))
    return enlarged


def measure(video: Path, args: argparse.Namespace) -> dict[str, float]:
    """Seconds a frame of every stage, and the mean number of faces."""
    model = load_network(args.landmark_model_weights, resolve_device(args.device), NUM_LANDMARKS, "sample")
    config = replace(TRACKING["steady"], rwr=VARIANTS[args.rwr_variant])
    detector = TimedDetector(CenterFaceDetector())
    follower = FaceTracker(model, config, detector=detector, precision=args.precision)
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
            draw_faces(frame, [face.landmarks.landmarks for face in faces])
            drawn = time.perf_counter()
            if faces:
                boxes = np.array([face.landmarks.box for face in faces])
                crop_faces(frame, boxes, model.config.image_size, "bgr", config.crop)
            crop = time.perf_counter() - drawn
            # The first pass only warms up.
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
