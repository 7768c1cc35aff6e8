"""Landmarks of the faces in a picture."""

from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from numpy.typing import ArrayLike

from inference.engines import Engine, EngineName, Precision
from inference.flip import mean_with_mirrored
from inference.results import Face, to_frame
from inference.streams import Streams
from models.ldeq import LDEQ
from utils.arrays import to_numbers
from utils.crops import CROP_RULES, CropRule, crop_box
from utils.images import ColourOrder, check_picture, to_network_input, to_rgb
from utils.values import check_choice, check_flag, check_instance


class LandmarkPredictor:
    """Finds the landmarks of faces in single pictures, every one solved from zeros.

    Args:
        model: see `models.load_checkpoint`.
        precision: see `inference.network.Network`.
        colour: order of the channels of the pictures: "bgr", as OpenCV reads them, or "rgb".
        crop: how the faces are cut out; the evaluation of raw WFLW uses the rule of the original.
        engine: see `inference.network.Network`.
        cuda_graphs: see `inference.streams.Streams`.
        flip: whether the landmarks are the mean with those of the mirrored crop, at twice the cost; all other results
            are those of the crop itself.
    """

    def __init__(
        self,
        model: LDEQ,
        precision: Precision = "fp32",
        colour: ColourOrder = "bgr",
        crop: CropRule = CROP_RULES["exact"],
        engine: EngineName | Engine = "auto",
        cuda_graphs: bool = False,
        flip: bool = False,
    ):
        check_choice("colour", colour, get_args(ColourOrder))
        check_instance("crop", crop, CropRule)
        check_flag("flip", flip)
        self.streams = Streams(model, None, precision=precision, engine=engine, cuda_graphs=cuda_graphs)
        self.colour = colour
        self.crop = crop
        self.flip = flip

    def __call__(self, image: np.ndarray, boxes: ArrayLike) -> list[Face]:
        """Landmarks of the faces in the boxes.

        Args:
            image: (H, W, 3) uint8.
            boxes: (N, 4) x1, y1, x2, y2 in pixels.

        Returns:
            N faces, in the order of the boxes.

        Raises:
            ValueError: If the picture or the boxes have another shape, or a box has no area.
        """
        check_picture(image)
        boxes = check_boxes(boxes)
        if not len(boxes):
            return []
        size = self.streams.network.config.image_size
        images, matrices = crop_faces(image, boxes, size, self.colour, self.crop)
        results = self.streams.step(images, matrices, range(len(boxes)))
        if self.flip:
            mirrored = self.streams.step(images.flip(3), matrices, range(len(boxes)))
            keypoints = mean_with_mirrored(results.keypoints, mirrored.keypoints, size)
            results = replace(results, keypoints=keypoints)
        return to_frame(results, boxes, matrices, range(len(boxes)))


def check_boxes(boxes: ArrayLike) -> np.ndarray:
    """The boxes as (N, 4) float64; an empty list means no boxes.

    Raises:
        ValueError: If they have another shape, or are not numbers.
    """
    boxes = to_numbers("boxes (N, 4), x1 y1 x2 y2,", boxes)
    if boxes.ndim and not len(boxes):
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), x1 y1 x2 y2, got {boxes.shape}")
    return boxes


def crop_faces(
    image: np.ndarray, boxes: np.ndarray, size: int, colour: ColourOrder, rule: CropRule
) -> tuple[torch.Tensor, np.ndarray]:
    """The network's input for the faces in some boxes.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4) x1, y1, x2, y2 in pixels, at least one.
        size: side of the network's input.
        colour: order of the channels of the image.
        rule: how the faces are cut out.

    Returns:
        Images (N, 3, size, size) float32, and matrices (N, 2, 3) float64 from the image to the crop as [0, 1] x [0, 1].

    Raises:
        ValueError: If the picture or a box has another shape, or a box has no area.
    """
    crops, matrices = zip(*(crop_box(image, box, size, rule.exact) for box in boxes), strict=True)
    return to_network_input(to_rgb(np.stack(crops), colour)), np.stack(matrices)
