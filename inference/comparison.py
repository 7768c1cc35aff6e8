"""Three methods on the same crops: every frame on its own, RwR of the paper, RwR with our pull."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from inference.engines import Engine, EngineName, Precision
from inference.landmark_tracker import BoxTracker, TrackingConfig
from inference.network import Network
from inference.streams import RestartRule
from models.ldeq import LDEQ
from models.rwr import VARIANTS, RwRConfig
from utils.crops import CropRule
from utils.side_by_side import SideBySide

METHODS: dict[str, RwRConfig | None] = {
    "every frame on its own": None,
    "RwR as in the paper": VARIANTS["faithful"],
    "RwR with our pull (steady)": VARIANTS["steady"],
}


class MethodComparison:
    """Runs the methods on the faces of a video; a face that fails or leaves starts over at its next frame.

    Args:
        model: implicit, see `models.load_checkpoint`.
        precision: see `inference.network.Network`.
        engine: see `inference.network.Network`.
        exact: see `utils.crops.CropRule`.

    Attributes:
        pictures: draws the methods side by side.

    Raises:
        OptionError: If the network is explicit.
    """

    def __init__(
        self, model: LDEQ, precision: Precision = "fp32", engine: EngineName | Engine = "auto", exact: bool = True
    ):
        opened = Network(model, precision, engine).engine
        self.trackers = {
            title: BoxTracker(
                model,
                TrackingConfig(rwr=rwr, solve_first_frame=True, restart=RestartRule(), crop=CropRule(exact=exact)),
                precision=precision,
                engine=opened,
            )
            for title, rwr in METHODS.items()
        }
        self.pictures = SideBySide(tuple(METHODS))

    def step(self, frame: np.ndarray, boxes: Mapping[int, ArrayLike]) -> dict[str, dict[int, np.ndarray]]:
        """Landmarks in the next frame.

        Args:
            frame: (H, W, 3) uint8 BGR.
            boxes: (4,) x1, y1, x2, y2 for every method's crop, by the number of the face.

        Returns:
            (K, 2) in pixels of the frame by method and number of the face, for `pictures.draw`.

        Raises:
            ValueError: If the frame or a box has another shape, or a box has no area.
        """
        return {
            title: {number: face.landmarks for number, face in tracker.step(frame, boxes).items()}
            for title, tracker in self.trackers.items()
        }

    @property
    def jitter(self) -> dict[str, float]:
        """Jitter in percent of the face size by method, see `utils.metrics.frame_shake`."""
        return {title: meter.mean for title, meter in self.pictures.meters.items()}
