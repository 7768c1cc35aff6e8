"""One object from a picture or a video to the landmarks of its faces, with the results of `demo.py`."""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import get_args, overload

import numpy as np
from PIL import Image

from inference.detector import CenterFaceDetector
from inference.engines import EngineName, Precision, open_engine
from inference.face_tracker import FaceTracker
from inference.landmark_tracker import TRACKING, TrackingConfig
from inference.network import load_network, resolve_device
from inference.options import SHIPPED_WEIGHTS
from inference.pictures import find_faces
from inference.predictor import LandmarkPredictor
from inference.results import Face
from utils.errors import InputError
from utils.images import ColourOrder
from utils.landmark_groups import NUM_LANDMARKS
from utils.pictures import Picture, to_bgr
from utils.sources import open_source, read_frames, read_picture
from utils.values import check_choice, check_instance, to_path

VideoSource = str | os.PathLike[str] | int | Iterable[Picture]


class FaceLandmarker:
    """Finds the 98 landmarks of all faces in pictures and videos.

    Its settings are those of `demo.py`, so that both give the same numbers.

    Args:
        weights: checkpoint of this project or of the original release; None for the shipped weights.
        device: "cpu", "cuda", "mps", or "auto" for a GPU if there is one, else the CPU.
        precision: "fp32" or "bf16", see `inference.network.Network`.
        engine: see `inference.engines.open_engine`.
        tracking: how the faces of a video are followed; None for the setting "steady", or without RwR for an explicit
            network.
        detection_threshold: lowest score of a face, in (0, 1).
        min_face: longer side in pixels of the smallest face to look for; None, see `CenterFaceDetector`.
        colour: order of the channels of arrays: "bgr", as OpenCV reads them, or "rgb".

    Raises:
        CheckpointError: If the weights cannot be used.
        OptionError: If an option is out of range or not available on this machine.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        precision: Precision = "fp32",
        engine: EngineName = "auto",
        tracking: TrackingConfig | None = None,
        detection_threshold: float = 0.5,
        min_face: float | None = None,
        colour: ColourOrder = "bgr",
    ):
        check_instance("tracking", tracking, TrackingConfig, optional=True)
        check_choice("colour", colour, get_args(ColourOrder))
        path = SHIPPED_WEIGHTS if weights is None else to_path("weights", weights)
        self.model = load_network(path, resolve_device(device), NUM_LANDMARKS, "sample")
        self.colour: ColourOrder = colour
        if tracking is None:
            steady = TRACKING["steady"]
            tracking = replace(steady, rwr=None) if self.model.config.mode == "explicit" else steady
        self.tracking = tracking
        self.engine = open_engine(self.model, engine, precision)
        self.predictor = LandmarkPredictor(self.model, engine=self.engine)
        self.detector = CenterFaceDetector("picture", detection_threshold, min_face)
        self.video_detector = CenterFaceDetector("video", detection_threshold, min_face)

    @overload
    def __call__(self, pictures: Picture) -> list[Face]: ...

    @overload
    def __call__(self, pictures: list[Picture] | tuple[Picture, ...]) -> list[list[Face]]: ...

    def __call__(self, pictures: Picture | list[Picture] | tuple[Picture, ...]) -> list[Face] | list[list[Face]]:
        """The faces of a picture, the highest score first; for a list of pictures, a list of faces for each.

        Args:
            pictures: a path, a PIL image or an array (H, W, 3) uint8, or a list of them.

        Raises:
            InputError: If it is none of these, or a file cannot be decoded.
        """
        if isinstance(pictures, list | tuple):
            return [self._find(picture) for picture in pictures]
        return self._find(pictures)

    def track(self, source: VideoSource) -> Iterator[list[Face]]:
        """Follow the faces of a video; a face keeps its number from frame to frame.

        Args:
            source: path of a video or of a folder of frames, index of a webcam, or an iterable of frames, each a
                picture as in `__call__`.

        Yields:
            The faces of the next frame.

        Raises:
            InputError: If it is none of these, or does not open.
        """
        frames = self._frames(source)  # here, so that a wrong source is reported by this call, not by the first frame
        return self._follow(frames)

    def _find(self, picture: Picture) -> list[Face]:
        return find_faces(to_bgr(picture, self.colour), self.predictor, self.detector)

    def _follow(self, frames: Iterator[np.ndarray]) -> Iterator[list[Face]]:
        tracker = FaceTracker(self.model, self.tracking, detector=self.video_detector, engine=self.engine)
        for frame in frames:
            yield tracker.step(frame)

    def _frames(self, source: VideoSource) -> Iterator[np.ndarray]:
        if isinstance(source, str | os.PathLike | int) and not isinstance(source, bool):
            opened = open_source(str(source if isinstance(source, int) else to_path("source", source)))
            if opened.kind in ("picture", "folder"):
                return map(read_picture, opened.paths)
            return _closing(read_frames(opened))
        try:
            frames = None if isinstance(source, bool | np.ndarray | memoryview | Image.Image) else iter(source)
        except TypeError:  # also of a tensor without dimensions, which is an Iterable
            frames = None
        if frames is None:
            raise InputError(
                f"a video is a path, the index of a webcam or an iterable of frames, not {type(source).__name__}; "
                "for a single picture call the object itself"
            )
        return (to_bgr(frame, self.colour) for frame in frames)


def _closing(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same frames; the video is closed when the consumer stops."""
    with closing(frames):  # type: ignore[type-var]  # a generator, which can be closed
        yield from frames
