"""Landmarks of the faces in a picture."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from inference.network import Precision, autocast
from inference.streams import to_results
from models.ldeq import LDEQ, LDEQOutput
from utils.crops import CROP_RULES, CropRule, crop_box
from utils.geometry import transform_points
from utils.images import ColourOrder, to_network_input, to_rgb


@dataclass(frozen=True, eq=False)
class FaceLandmarks:
    """The landmarks of one face in a frame.

    Attributes:
        landmarks: (K, 2) float64 x, y in pixels of the frame.
        uncertainty: (K,) float64 standard deviation of the heatmaps, sqrt((var x + var y) / 2), in pixels of the frame.
        box: (4,) float64 x1, y1, x2, y2 that the face was cropped by.
        evaluations: of the cell.
        residual: relative residual of the solver's last evaluation; NaN for an explicit network.
    """

    landmarks: np.ndarray
    uncertainty: np.ndarray
    box: np.ndarray
    evaluations: int
    residual: float


class LandmarkPredictor:
    """Finds the landmarks of faces in single pictures, every one solved from zeros.

    Args:
        model: see `models.load_checkpoint`.
        precision: see `inference.network.autocast`.
        colour: order of the channels of the pictures: "bgr", as OpenCV reads them, or "rgb".
        crop: how the faces are cut out; the evaluation of raw WFLW has the original's rule.
    """

    def __init__(
        self,
        model: LDEQ,
        precision: Precision = "fp32",
        colour: ColourOrder = "bgr",
        crop: CropRule = CROP_RULES["exact"],
    ):
        self.model = model.eval()
        self.precision = precision
        self.colour = colour
        self.crop = crop

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, boxes: ArrayLike) -> list[FaceLandmarks]:
        """Landmarks of the faces in the boxes.

        Args:
            image: (H, W, 3) uint8.
            boxes: (N, 4) x1, y1, x2, y2 in pixels.

        Returns:
            N faces, in the order of the boxes.

        Raises:
            ValueError: The picture or the boxes have another form, or a box has no area.
        """
        boxes = check_boxes(boxes)
        if not len(boxes):
            return []
        crops = [crop_face(image, box, self.model.config.image_size, self.colour, self.crop.exact) for box in boxes]
        device = next(self.model.parameters()).device
        images = torch.stack([image for image, _ in crops]).to(device, memory_format=torch.channels_last)
        with autocast(device, self.precision):
            output = self.model(images)
        return to_frame(output, boxes, np.stack([matrix for _, matrix in crops]), self.model)


def check_boxes(boxes: ArrayLike) -> np.ndarray:
    """(N, 4) float64; an empty list is no boxes.

    Raises:
        ValueError: Another shape.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), x1 y1 x2 y2, got {boxes.shape}")
    return boxes


def crop_face(
    image: np.ndarray, box: ArrayLike, size: int, colour: ColourOrder, exact: bool
) -> tuple[torch.Tensor, np.ndarray]:
    """The network's input (3, size, size) for a box, and the matrix (2, 3) from the frame to the unit of the crop."""
    crop, matrix = crop_box(image, box, size, exact)
    return to_network_input(to_rgb(crop, colour)), matrix


def to_frame(output: LDEQOutput, boxes: np.ndarray, matrices: np.ndarray, model: LDEQ) -> list[FaceLandmarks]:
    """The network's output for N crops in pixels of their frames."""
    uncertainty = output.uncertainty.cpu().double().numpy()
    results = to_results(output, model.config)
    return [
        FaceLandmarks(
            landmarks=transform_points(results.keypoints[face], matrices[face], inverse=True),
            uncertainty=uncertainty[face] / matrices[face, 0, 0],
            box=boxes[face],
            evaluations=int(results.evaluations[face]),
            residual=float(results.residual[face]),
        )
        for face in range(len(boxes))
    ]
