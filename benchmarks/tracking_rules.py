"""The figures behind the rules of tracking: when a frame counts as a cut, and when a face counts as lost.

python benchmarks/tracking_rules.py --WFLW_V_dataset_path WFLW_V

    warm start, next frame    residual of the warm start in the frames of a clip after the first
    warm start, cut           the same where the next frame is that of another clip, at the same place
    uncertainty, face         mean uncertainty of the landmarks over the longer side of their box
    uncertainty, elsewhere    the same for boxes of the size of the face, beside it in the picture

The first two decide `inference.streams.RestartRule.residual`, the others `inference.results.UNSURE`. The network is
tracked as the demo does it: the variant "steady" on steady crops.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.measuring import add_measuring_options, report
from evaluation.settings import SAMPLE
from inference.options import SHIPPED_WEIGHTS
from utils.command_line import given_path, run, script_parser

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from datasets.wflw_v import Clip
    from inference.streams import Streams
    from models.ldeq import LDEQ

FRAMES = 45
CUT_AFTER = 3
PLACES = 4
LEVELS = (1, 5, 50, 95, 99)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--landmark_model_weights", type=given_path, default=SHIPPED_WEIGHTS, help="the checkpoint")
    parser.add_argument("--WFLW_V_dataset_path", type=given_path, default=SAMPLE, help="WFLW-V (default: the sample)")
    add_measuring_options(parser, repeats=1, table="tracking_rules.csv")
    return parser.parse_args()


def main() -> None:
    """Measure, print the percentiles, and write them where asked."""
    args = parse_arguments()
    import numpy as np
    import pandas as pd
    import torch

    from datasets.wflw_v import list_clips
    from inference.network import load_network
    from inference.results import UNSURE
    from inference.streams import RestartRule
    from utils.landmark_groups import NUM_LANDMARKS

    rule = RestartRule().residual
    model = load_network(args.landmark_model_weights, torch.device("cpu"), NUM_LANDMARKS, "sample")
    clips = list(list_clips(args.WFLW_V_dataset_path).clips)
    residuals, uncertainties = follow(model, clips)
    measured = {
        "warm start, next frame": residuals,
        "warm start, cut": cut(model, clips),
        "uncertainty, face": uncertainties,
        "uncertainty, elsewhere": list(elsewhere(model, clips)),
    }
    rows = [
        {
            "figure": name,
            "count": len(values),
            **{f"{level} %": np.percentile(values, level) for level in LEVELS},
            "beyond the rule, %": 100 * np.mean(np.array(values) > (UNSURE if "uncertainty" in name else rule)),
        }
        for name, values in measured.items()
    ]
    report(pd.DataFrame(rows), None, args.output_folder and args.output_folder / "tracking_rules.csv")


def follow(model: "LDEQ", clips: Sequence["Clip"]) -> tuple[list[float], list[float]]:
    """The residual of every warm start, and the relative uncertainty of every frame, in the first frames of clips."""
    import numpy as np

    from inference.results import to_frame

    residuals, uncertainties = [], []
    for clip in clips:
        streams = open_streams(model)
        for number, frame in enumerate(first_crops(model, clip, FRAMES)):
            found = streams.step(frame.images, frame.matrices, [0])
            uncertainties.append(to_frame(found, np.zeros((1, 4)), frame.matrices, [0])[0].relative_uncertainty)
            if number:
                residuals.append(float(found.start_residual[0]))
    return residuals, uncertainties


def cut(model: "LDEQ", clips: Sequence["Clip"]) -> list[float]:
    """The residual of the warm start after a cut from every clip to every clip of another person."""
    frames = {clip.video_id: list(first_crops(model, clip, CUT_AFTER + 1)) for clip in clips}
    residuals = []
    for before, after in permutations(frames, 2):
        # The name of a degraded clip contains that of the clip it was made of.
        if before in after or after in before:
            continue
        streams = open_streams(model)
        for frame in frames[before][:CUT_AFTER]:
            streams.step(frame.images, frame.matrices, [0])
        found = streams.step(frames[after][CUT_AFTER].images, frames[before][CUT_AFTER].matrices, [0])
        residuals.append(float(found.start_residual[0]))
    return residuals


def open_streams(model: "LDEQ") -> "Streams":
    """Tracking as the demo does it, but no frame counts as a cut."""
    from inference.landmark_tracker import TRACKING
    from inference.streams import Streams

    config = TRACKING["steady"]
    return Streams(model, config.rwr, solve_first_frame=config.solve_first_frame)


@dataclass(frozen=True, eq=False)
class Crop:
    """A frame's face: images (1, 3, S, S) and matrices (1, 2, 3), see `Streams.step`."""

    images: "Tensor"
    matrices: "np.ndarray"


def first_crops(model: "LDEQ", clip: "Clip", count: int) -> Iterator[Crop]:
    """The steady crops of a clip's first frames."""
    from datasets.clip_stream import read_crops
    from utils.crops import CROP_RULES
    from utils.images import to_network_input

    for frame in islice(read_crops(clip, model.config.image_size, (CROP_RULES["steady"],)), count):
        yield Crop(to_network_input(frame.images), frame.matrices)


def elsewhere(model: "LDEQ", clips: Sequence["Clip"]) -> Iterator[float]:
    """The relative uncertainty in boxes that do not touch the face, in the first frame of each clip."""
    import numpy as np

    from datasets.wflw_v import read_boxes, read_frames
    from inference.predictor import LandmarkPredictor
    from utils.geometry import box_overlap

    predictor, generator = LandmarkPredictor(model), np.random.default_rng(0)
    for clip in clips:
        frame, box = next(read_frames(clip)), read_boxes(clip)[0]
        side = box[2:] - box[:2]
        corners = generator.uniform(0, np.maximum(np.array(frame.shape[1::-1]) - side, 1), (50 * PLACES, 2))
        places = [np.concatenate([corner, corner + side]) for corner in corners]
        free = [place for place in places if box_overlap(box, place) == 0][:PLACES]
        for face in predictor(frame, free):
            yield face.relative_uncertainty


if __name__ == "__main__":
    sys.exit(run(main))
