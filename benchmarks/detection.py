"""How many faces the demo finds in pictures, and how many of the labelled ones are among them.

python benchmarks/detection.py --dataset_path WFLW                      # raw WFLW, with whole pictures
python benchmarks/detection.py --dataset_path WFLW --thresholds 0.5 0.3 --output_folder results

    detections    boxes of the detector
    faces         those that the demo keeps: landmarks that are sure, each face once
    labelled      labelled faces among them: boxes of landmarks that overlap by at least 0.4 (intersection over union)

The first rows search as for pictures, the last as for videos, at one scale. WFLW labels only some of the faces in its
pictures, so the other kept faces are not false ones; --output_folder also gets an overlay of every picture to look at.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # A script's own folder comes first on the path; `solvers` there would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.measuring import add_measuring_options, report
from inference.options import add_engine_options, add_machine_options, add_weights_option
from utils.command_line import given_path, number_in, run, script_parser
from utils.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from inference.detector import DetectionMode, FaceDetector
    from inference.predictor import LandmarkPredictor

OVERLAP = 0.4


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    add_weights_option(parser)
    parser.add_argument("--dataset_path", type=given_path, required=True, help="raw WFLW")
    parser.add_argument(
        "--thresholds", type=number_in(0.01, 0.99), nargs="+", default=[0.5, 0.3], help="scores (%(default)s)"
    )
    add_machine_options(parser)
    add_engine_options(parser)
    add_measuring_options(parser, repeats=1, table="detection.csv")
    return parser.parse_args()


def main() -> None:
    """Count, print the table, and write it where asked."""
    args = parse_arguments()
    import pandas as pd

    from datasets.wflw import load_wflw_test
    from inference.detector import CenterFaceDetector
    from inference.engines import open_engine
    from inference.network import load_network, resolve_device, use_threads
    from inference.predictor import LandmarkPredictor
    from utils.landmark_groups import NUM_LANDMARKS

    use_threads(args.threads)
    test = load_wflw_test(args.dataset_path)
    if test.layout != "raw":
        raise InputError(f"{args.dataset_path}: holds crops; give raw WFLW, whose pictures are whole")
    labelled: dict[Path, list[np.ndarray]] = {}
    for face in test.faces:
        labelled.setdefault(face.image_path, []).append(face.landmarks)
    model = load_network(args.landmark_model_weights, resolve_device(args.device), NUM_LANDMARKS, "sample")
    predictor = LandmarkPredictor(model, engine=open_engine(model, args.engine, args.precision))
    modes: list[tuple[DetectionMode, float]] = [("picture", threshold) for threshold in args.thresholds] + [
        ("video", args.thresholds[0])
    ]
    rows = []
    for number, (mode, threshold) in enumerate(modes):
        overlays = args.output_folder / "overlays" if args.output_folder and number == 0 else None
        counts = count(labelled, CenterFaceDetector(mode, threshold), predictor, overlays)
        rows.append({"search": mode, "threshold": threshold, "pictures": len(labelled), **counts})
    report(pd.DataFrame(rows), None, args.output_folder and args.output_folder / "detection.csv")


class CountingDetector:
    """A detector that also counts what it finds."""

    def __init__(self, detector: FaceDetector):
        self.detector = detector
        self.detections = 0

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
        found = self.detector.detect(frame)
        self.detections += len(found)
        return found


def count(
    labelled: dict[Path, list[np.ndarray]], detector: FaceDetector, predictor: LandmarkPredictor, overlays: Path | None
) -> dict[str, int]:
    """The counts of the table, over all pictures; overlays are written to a folder, if one is given."""
    from inference.pictures import draw, find_faces
    from utils.geometry import box_overlap, landmark_box
    from utils.sources import read_picture
    from utils.writers import write_picture

    counts = {"detections": 0, "faces": 0, "labelled": 0, "of": 0}
    counting = CountingDetector(detector)
    for path, true in labelled.items():
        picture = read_picture(path)
        faces = find_faces(picture, predictor, counting)
        boxes = [landmark_box(face.landmarks) for face in faces]
        counts["faces"] += len(faces)
        counts["of"] += len(true)
        counts["labelled"] += sum(any(box_overlap(landmark_box(one), box) >= OVERLAP for box in boxes) for one in true)
        if overlays:
            write_picture(overlays / f"{path.parent.name}_{path.stem}.png", draw(picture, faces))
    return counts | {"detections": counting.detections}


if __name__ == "__main__":
    sys.exit(run(main))
