"""Faces in a stream of frames, in given boxes: one face, or several by their numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from inference.engines import Engine, EngineName, Precision
from inference.predictor import crop_faces
from inference.results import Face, to_frame
from inference.streams import RestartRule, Streams
from models.ldeq import LDEQ
from models.rwr import VARIANTS, RwRConfig
from utils.arrays import to_numbers
from utils.crops import CROP_RULES, CropRule
from utils.geometry import box_overlap, steady_box
from utils.images import ColourOrder, check_picture
from utils.values import check_choice, check_flag, check_instance, check_value, plain


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """How a face is followed from frame to frame.

    Attributes:
        rwr: how a frame is solved from the previous frame; None solves every frame from zeros.
        solve_first_frame: whether a first frame gets a full solve, see `Streams`.
        restart: when a frame counts as a first frame; None for never.
        crop: how the face is cut out of the frames.
    """

    rwr: RwRConfig | None = VARIANTS["faithful"]
    solve_first_frame: bool = False
    restart: RestartRule | None = None
    crop: CropRule = CROP_RULES["original"]

    def __post_init__(self) -> None:
        check_instance("rwr", self.rwr, RwRConfig, optional=True)
        check_flag("solve_first_frame", self.solve_first_frame)
        check_instance("restart", self.restart, RestartRule, optional=True)
        check_instance("crop", self.crop, CropRule)


TRACKING = {
    "original": TrackingConfig(),
    "steady": TrackingConfig(
        rwr=VARIANTS["steady"], solve_first_frame=True, restart=RestartRule(), crop=CROP_RULES["steady"]
    ),
}
"""By name: the original's settings for WFLW-V ("original"), and those with the least jitter ("steady")."""


def check_numbered(boxes: Mapping[int, ArrayLike]) -> None:
    """Check that boxes are given by the integer numbers of their faces; the boxes themselves are not checked.

    Raises:
        OptionError: If they are not.
    """
    check_instance("boxes", boxes, Mapping)
    for number in boxes:
        check_value("the number of a face among the boxes", plain(number), int)


class BoxTracker:
    """Follows faces with known boxes, each by its number, all faces of a frame in one batch.

    Args:
        model: see `models.load_checkpoint`.
        config: how they are followed.
        precision: see `inference.network.Network`.
        colour: order of the channels of the frames: "bgr", as OpenCV reads them, or "rgb".
        engine: see `inference.network.Network`.
        cuda_graphs: see `inference.streams.Streams`.

    Raises:
        OptionError: RwR is asked of an explicit network, or CUDA graphs where they cannot be.
    """

    def __init__(
        self,
        model: LDEQ,
        config: TrackingConfig = TRACKING["steady"],
        *,
        precision: Precision = "fp32",
        colour: ColourOrder = "bgr",
        engine: EngineName | Engine = "auto",
        cuda_graphs: bool = False,
    ):
        check_instance("config", config, TrackingConfig)
        check_choice("colour", colour, get_args(ColourOrder))
        self.streams = Streams(
            model,
            config.rwr,
            solve_first_frame=config.solve_first_frame,
            restart=config.restart,
            precision=precision,
            engine=engine,
            cuda_graphs=cuda_graphs,
        )
        self.config = config
        self.colour = colour
        self._boxes: dict[int, np.ndarray] = {}

    def leave(self, number: int) -> None:
        """Forget a face: its next frame, if any, is a first frame.

        Raises:
            OptionError: If the number is no integer.
        """
        check_value("number of a face", plain(number), int)
        self.streams.leave(number)
        self._boxes.pop(number, None)

    def reset(self) -> None:
        """Forget all faces."""
        self.streams.reset()
        self._boxes.clear()

    def step(self, frame: np.ndarray, boxes: Mapping[int, ArrayLike]) -> dict[int, Face]:
        """Landmarks of some of the faces in the next frame.

        Args:
            frame: (H, W, 3) uint8.
            boxes: (4,) x1, y1, x2, y2 in pixels by the number of the face. A new number is a new face.

        Returns:
            The faces, in the order of the boxes. A face whose solve failed is forgotten.

        Raises:
            ValueError: If the frame or a box has another shape, or a box has no area; the states are kept.
            OptionError: If the boxes are not a mapping from integers.
        """
        check_picture(frame)
        check_numbered(boxes)
        if not boxes:
            return {}
        numbers = list(boxes)
        given = np.stack([to_numbers(f"the box of face {number}", boxes[number], (4,)) for number in numbers])
        first = np.array([self._is_first(number, box) for number, box in zip(numbers, given, strict=True)])
        if self.config.crop.steady:
            given = np.stack(
                [
                    box if starts else steady_box(self._boxes[number], box)
                    for number, box, starts in zip(numbers, given, first, strict=True)
                ]
            )
        size = self.streams.network.config.image_size
        images, matrices = crop_faces(frame, given, size, self.colour, self.config.crop)
        found = to_frame(self.streams.step(images, matrices, numbers, first), given, matrices, numbers)
        for number, box, face in zip(numbers, given, found, strict=True):
            self._boxes[number] = box
            if face.failed:
                self.leave(number)
        return dict(zip(numbers, found, strict=True))

    def _is_first(self, number: int, box: np.ndarray) -> bool:
        before, rule = self._boxes.get(number), self.config.restart
        return before is None or (rule is not None and box_overlap(before, box) < rule.overlap)


class LandmarkTracker:
    """Follows one face through a video.

    Args:
        model: see `models.load_checkpoint`.
        config: how it is followed.
        precision: see `inference.network.Network`.
        colour: order of the channels of the frames: "bgr", as OpenCV reads them, or "rgb".
        engine: see `inference.network.Network`.
        cuda_graphs: see `inference.streams.Streams`.

    Attributes:
        last: the face in the frame of the last step; None before the first.

    Raises:
        OptionError: RwR is asked of an explicit network, or CUDA graphs where they cannot be.
    """

    def __init__(
        self,
        model: LDEQ,
        config: TrackingConfig = TRACKING["steady"],
        *,
        precision: Precision = "fp32",
        colour: ColourOrder = "bgr",
        engine: EngineName | Engine = "auto",
        cuda_graphs: bool = False,
    ):
        self._faces = BoxTracker(
            model, config, precision=precision, colour=colour, engine=engine, cuda_graphs=cuda_graphs
        )
        self.last: Face | None = None

    def reset(self) -> None:
        """Forget the face: the next frame is a first frame."""
        self._faces.reset()
        self.last = None

    def step(self, frame: np.ndarray, box: ArrayLike) -> np.ndarray:
        """Landmarks in the next frame.

        Args:
            frame: (H, W, 3) uint8.
            box: (4,) x1, y1, x2, y2 of the face in pixels.

        Returns:
            (K, 2) float64 x, y in pixels of the frame, NaN if the solve failed; `last` has the rest.

        Raises:
            ValueError: If the frame or the box has another shape, or the box has no area; the state is kept.
        """
        self.last = self._faces.step(frame, {0: box})[0]
        return self.last.landmarks
