"""The landmarks of one face in a stream of frames, each solved from the one before."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from inference.network import Precision, autocast
from inference.predictor import FaceLandmarks, check_boxes, crop_face, to_frame
from inference.streams import RwR
from models.ldeq import LDEQ, LDEQOutput
from models.rwr import RwRConfig
from utils.crops import CROP_RULES, CropRule
from utils.errors import OptionError
from utils.geometry import box_overlap, steady_box
from utils.images import ColourOrder


@dataclass(frozen=True, kw_only=True)
class RestartRule:
    """When the state of the previous frame is of no use, so that the frame counts as a first one.

    Attributes:
        overlap: the boxes of two frames have an intersection over union below this: another face, or a jump.
        residual: the relative residual of the warm start, ||f(z0) - z0|| / ||f(z0)||, exceeds this, or is NaN, where
            the boxes agree: a cut. With the shipped weights and the variant "steady" it has the median 0.27 and the
            99th percentile 0.97 over 704 frames of 16 real clips, half of them degraded, and the median 1.27 and the
            5th percentile 0.90 over 224 cuts between them to another person at the same place: 1.0 finds 88 % of these
            cuts, and 0.7 % of the frames are solved afresh in vain.

    Raises:
        OptionError: an option is out of range.
    """

    overlap: float = 0.3
    residual: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 1:
            raise OptionError(f"overlap of the restart rule must be in [0, 1], not {self.overlap}")
        if not self.residual > 0:
            raise OptionError(f"residual of the restart rule must be positive, not {self.residual}")


class LandmarkTracker:
    """Follows one face through a video.

    Args:
        model: see `models.load_checkpoint`.
        rwr: whether frames are solved from the one before; otherwise each from zeros, by the network's own solver.
        config: how, see `models.rwr.VARIANTS`; None for RwR of the original release.
        solve_first_frame: whether the first frame, and one after a restart, gets a full solve by the network's own
            solver. The original gives it the same few evaluations as the others.
        restart: when to forget the state; None for never, as in the original.
        crop: how the face is cut out of the frames.
        precision: see `inference.network.autocast`.
        colour: order of the channels of the frames: "bgr", as OpenCV reads them, or "rgb".

    Attributes:
        last: what is known of the face in the frame of the last step; None before the first.

    Raises:
        OptionError: RwR is asked of an explicit network.
    """

    def __init__(
        self,
        model: LDEQ,
        rwr: bool = True,
        config: RwRConfig | None = None,
        solve_first_frame: bool = False,
        restart: RestartRule | None = None,
        crop: CropRule = CROP_RULES["original"],
        precision: Precision = "fp32",
        colour: ColourOrder = "bgr",
    ):
        if rwr and model.config.mode == "explicit":
            raise OptionError("an explicit network has no fixed point to carry on; use rwr=False")
        self.model = model.eval()
        self.config = config or RwRConfig()
        self.rwr = RwR(self.model, 1, self.config) if rwr else None
        self.solve_first_frame = solve_first_frame
        self.restart = restart
        self.crop = crop
        self.precision = precision
        self.colour = colour
        self.last: FaceLandmarks | None = None

    def reset(self) -> None:
        """Forget the face: the next frame is a first frame."""
        if self.rwr is not None:
            self.rwr.reset(0)
        self.last = None

    @torch.inference_mode()
    def step(self, frame: np.ndarray, box: ArrayLike) -> np.ndarray:
        """Landmarks in the next frame.

        Args:
            frame: (H, W, 3) uint8.
            box: (4,) x1, y1, x2, y2 of the face in pixels.

        Returns:
            (K, 2) float64 x, y in pixels of the frame; `last` has the rest.

        Raises:
            ValueError: The frame or the box has another form, or the box has no area; the state is kept.
        """
        boxes = check_boxes(np.asarray(box)[None])
        restart = self._face_is_lost(boxes[0])
        if self.crop.steady and self.last is not None and not restart:
            boxes = steady_box(self.last.box, boxes[0])[None]
        image, matrix = crop_face(frame, boxes[0], self.model.config.image_size, self.colour, self.crop.exact)
        if restart:
            self.reset()
        device = next(self.model.parameters()).device
        images = image[None].to(device, memory_format=torch.channels_last)
        with autocast(device, self.precision):
            output, solved = self._solve(images, torch.from_numpy(matrix)[None])
        (self.last,) = to_frame(output, boxes, matrix[None], solved)
        return self.last.landmarks

    def _face_is_lost(self, box: np.ndarray) -> bool:
        last, rule = self.last, self.restart
        return last is not None and rule is not None and box_overlap(last.box, box) < rule.overlap

    def _solve(self, images: torch.Tensor, matrices: torch.Tensor) -> tuple[LDEQOutput, LDEQ]:
        if self.rwr is None:
            return self.model(images), self.model
        if self.last is not None:
            output = self.rwr.step(images, matrices)
            # Put so that a residual of NaN is a restart too.
            if not self.restart or float(output.solution.trace[0]) <= self.restart.residual:
                return output, self.rwr.model
            self.reset()
        if self.solve_first_frame:
            return self.rwr.begin(images, matrices), self.model
        return self.rwr.step(images, matrices), self.rwr.model
