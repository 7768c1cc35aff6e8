"""The network in use. `from inference import FaceLandmarker` is the way in; torch is loaded only when it is asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.landmarker import FaceLandmarker

__all__ = ["FaceLandmarker"]


def __getattr__(name: str) -> Any:
    if name == "FaceLandmarker":
        from inference.landmarker import FaceLandmarker

        return FaceLandmarker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
