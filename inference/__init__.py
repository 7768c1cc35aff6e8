"""The network in use. Start with `from inference import FaceLandmarker`; torch is imported only then."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.landmarker import FaceLandmarker

__all__ = ["FaceLandmarker"]


def __getattr__(name: str) -> Any:
    if name == "FaceLandmarker":
        from inference.landmarker import FaceLandmarker

        return FaceLandmarker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
