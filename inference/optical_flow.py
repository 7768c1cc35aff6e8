"""How the content of one face crop moves to the next, by optical flow."""

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.images import IMAGENET_MEAN, IMAGENET_STD

FLOW_SIZE = 128
"""Side in pixels of the grey crops that the flow is computed of."""

LUMINANCE = (0.299, 0.587, 0.114)


def to_grey(images: Tensor) -> np.ndarray:
    """The grey pictures that `CropFlow` compares.

    Args:
        images: (n, 3, S, S) ImageNet-normalised RGB crops; on an accelerator the host waits for them.

    Returns:
        (n, FLOW_SIZE, FLOW_SIZE) uint8.
    """
    share = [weight * deviation for weight, deviation in zip(LUMINANCE, IMAGENET_STD, strict=True)]
    offset = sum(weight * mean for weight, mean in zip(LUMINANCE, IMAGENET_MEAN, strict=True))
    grey = (
        torch.einsum("nchw,c->nhw", images.float(), torch.tensor(share, dtype=torch.float32, device=images.device))
        + offset
    )
    pictures = (255 * grey.clamp(0, 1)).round().to(torch.uint8).cpu().numpy()
    if pictures.shape[1] == FLOW_SIZE:
        return pictures
    size = (FLOW_SIZE, FLOW_SIZE)
    return np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures])


class CropFlow:
    """Dense optical flow between crops, by inverse search of patches (Kroeger et al., ECCV 2016).

    The patches are compared after their mean is subtracted, so that a change of the light is no motion.
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def __call__(self, before: np.ndarray, after: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """The motion from one crop to the next, beyond that of the crop itself.

        Args:
            before: (FLOW_SIZE, FLOW_SIZE) uint8 of `to_grey`.
            after: the same of the next frame.
            moved: (2, 3) from the earlier crop to the later one, see `models.rwr.change_of_crop`.

        Returns:
            (4, FLOW_SIZE, FLOW_SIZE) float32, see `models.rwr.follow_flow`.
        """
        in_pixels = np.array(moved, dtype=np.float64)
        in_pixels[:, 2] *= FLOW_SIZE
        before = cv2.warpAffine(before, in_pixels, (FLOW_SIZE, FLOW_SIZE), borderMode=cv2.BORDER_REPLICATE)
        # OpenCV's stub does not know that None stands for a new array.
        there = self._flow.calc(before, after, None)  # type: ignore[call-overload]
        back = self._flow.calc(after, before, None)  # type: ignore[call-overload]
        return np.concatenate([there, back], axis=2).transpose(2, 0, 1) / FLOW_SIZE
