"""Strength of every part of the training augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np

from utils.errors import OptionError
from utils.values import check_number, plain

_BOUNDS = {
    "crop_scale": (0.1, 10),
    "turn_angle": (0, 80),
    "nod_angle": (0, 80),
    "hue": (0, 0.5),
    "channel_gamma": (0.01, 100),
    "posterise_levels": (2, 256),
    "side_light": (0, 1),
    "occlusion_count": (1, 100),
    "low_resolution": (0.01, 1),
    "blur": (1e-4, 1),
    "motion_blur": (0, 1),
    "jpeg_quality": (1, 100),
    "picture_edge": (0, 1),
}
"""Bounds of the options whose bounds differ from the defaults: [0, 1] for probabilities, else [0, inf)."""


@dataclass(frozen=True)
class AugmentationConfig:
    """Strength of every part of the augmentation.

    A range is a pair (low, high) from which a value is drawn uniformly.

    Attributes:
        crop_scale: Crop side over the longer side of the landmark box, (low, mode, high) of a triangular distribution.
            Video crops have 1.2, the pre-cropped WFLW test faces 1.03 to 1.6.
        box_jitter: Standard deviation of each edge of the box, drawn independently, over its longer side, as in the
            boxes of a face detector.
        shift: Largest shift of the crop, as a fraction of the room that the crop scale leaves around the box.
        rotation: Largest in-plane rotation, degrees, either way.
        large_rotation: Largest in-plane rotation of the few strongly rotated faces, degrees.
        large_rotation_probability: Share of the strongly rotated faces.
        stretch: Largest change of the aspect ratio, as the logarithm of width over height.
        shear: Largest shear, pixels per pixel.
        flip_probability: Share of mirrored faces.
        turn_probability: Share of faces that get a synthetic head turn (`HeadTurn`).
        turn_angle: Largest synthetic turn to the side, degrees.
        turn_away_probability: Share of the turns that go further to the side to which the face already looks; these
            make near profiles.
        nod_angle: Largest synthetic turn up or down that comes with a turn, degrees.
        border_probabilities: Shares of (black, mirrored, repeated) pixels outside the source image. Test crops have
            black there; with the others, black borders do not give away the place of the face.
        pair_shift: Standard deviation of the second view's shift, over the crop side. These three are the motion of a
            talking head from frame to frame at 25 to 30 frames a second.
        pair_scale: Standard deviation of the logarithm of the second view's scale.
        pair_rotation: Standard deviation of the second view's rotation, degrees.
        pair_fast_probability: Share of the pairs that move fast.
        pair_fast: Factor of their motion.
        pair_light: Standard deviation of the logarithms of each view's own brightness and gamma.
        colour_probability: Probability of each of brightness, contrast, saturation and gamma.
        brightness: Range of the brightness factor.
        contrast: Range of the contrast factor.
        saturation: Range of the saturation factor.
        gamma: Range of the gamma exponent.
        hue_probability: Probability of a hue shift.
        hue: Largest hue shift, in turns of the colour circle (at most 0.5).
        channel_probability: Probability that every channel gets a gain and a gamma of its own, as under coloured light.
        channel_gain: Range of such a gain.
        channel_gamma: Range of such a gamma; drawn uniformly in its logarithm.
        permutation_probability: Probability that the channels are permuted.
        duotone_probability: Share of images drawn in the colours between two random ones.
        posterise_probability: Share of images with few intensities.
        posterise_levels: Range of their number.
        grayscale_probability: Share of images without colour.
        side_light_probability: Share of faces lit from one side.
        side_light: Range of the strength of the side light: one edge is brightened and the other darkened by it.
        occlusion_probability: Share of occluded faces.
        occlusion_count: Largest number of occluders.
        occlusion_size: Range of an occluder's width and height, over the crop side.
        worn_probability: Share of faces behind glasses, goggles, a mask, a hand or headgear (`training.occluders`).
        low_resolution_probability: Share of faces from a smaller image.
        low_resolution: Range of the smaller image's size, over the crop side.
        blur_probability: Probability of Gaussian blur.
        blur: Range of its standard deviation, over the crop side.
        motion_blur_probability: Probability of motion blur.
        motion_blur: Range of its length, over the crop side.
        noise_probability: Probability of sensor noise.
        noise: Range of its standard deviation, over the full intensity range.
        jpeg_probability: Probability of JPEG compression.
        jpeg_quality: Range of its quality, 1 to 100.
        picture_edge_probability: Share of faces cut by a black edge, as if they left the picture.
        picture_edge: Range of the width of that edge, over the crop side.

    Raises:
        OptionError: If a value is out of its bounds or has another shape than the default, the ends of a range are
            swapped, or the border shares do not sum to 1.
    """

    crop_scale: tuple[float, float, float] = (1.0, 1.2, 1.7)
    box_jitter: float = 0.03
    shift: float = 0.9
    rotation: float = 20.0
    large_rotation: float = 45.0
    large_rotation_probability: float = 0.15
    stretch: float = 0.08
    shear: float = 0.06
    flip_probability: float = 0.5
    turn_probability: float = 0.5
    turn_angle: float = 40.0
    turn_away_probability: float = 0.75
    nod_angle: float = 12.0
    border_probabilities: tuple[float, float, float] = (0.6, 0.25, 0.15)
    pair_shift: float = 0.005
    pair_scale: float = 0.007
    pair_rotation: float = 0.7
    pair_fast_probability: float = 0.15
    pair_fast: float = 5.0
    pair_light: float = 0.05
    colour_probability: float = 0.5
    brightness: tuple[float, float] = (0.6, 1.4)
    contrast: tuple[float, float] = (0.6, 1.4)
    saturation: tuple[float, float] = (0.3, 1.7)
    gamma: tuple[float, float] = (0.6, 1.5)
    hue_probability: float = 0.4
    hue: float = 0.5
    channel_probability: float = 0.3
    channel_gain: tuple[float, float] = (0.4, 1.5)
    channel_gamma: tuple[float, float] = (0.55, 1.8)
    permutation_probability: float = 0.12
    duotone_probability: float = 0.1
    posterise_probability: float = 0.05
    posterise_levels: tuple[int, int] = (2, 6)
    grayscale_probability: float = 0.1
    side_light_probability: float = 0.2
    side_light: tuple[float, float] = (0.2, 0.7)
    occlusion_probability: float = 0.35
    occlusion_count: int = 2
    occlusion_size: tuple[float, float] = (0.1, 0.45)
    worn_probability: float = 0.2
    low_resolution_probability: float = 0.2
    low_resolution: tuple[float, float] = (0.2, 0.8)
    blur_probability: float = 0.15
    blur: tuple[float, float] = (0.004, 0.02)
    motion_blur_probability: float = 0.1
    motion_blur: tuple[float, float] = (0.02, 0.09)
    noise_probability: float = 0.2
    noise: tuple[float, float] = (0.01, 0.07)
    jpeg_probability: float = 0.3
    jpeg_quality: tuple[float, float] = (15.0, 85.0)
    picture_edge_probability: float = 0.05
    picture_edge: tuple[float, float] = (0.02, 0.2)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "AugmentationConfig":
        """The defaults with some options changed, each NAME=VALUE; a range is VALUE,VALUE.

        Raises:
            OptionError: If an option is unknown, or a value is not a number or out of its bounds.
        """
        defaults: dict[str, Any] = {field.name: field.default for field in fields(cls)}
        changes: dict[str, Any] = {}
        for text in texts:
            name, _, value = text.partition("=")
            try:
                numbers = tuple(float(number) for number in value.split(","))
            except ValueError as error:
                raise OptionError(f"augmentation option {text!r}: must be NAME=VALUE or NAME=VALUE,VALUE") from error
            if name not in defaults:
                raise OptionError(f"unknown augmentation option {name!r}; training/augmentation_config.py lists them")
            numbers = tuple(int(number) for number in numbers) if _is_whole(defaults[name]) else numbers
            changes[name] = numbers if len(numbers) > 1 else numbers[0]
        return cls(**changes)

    def __post_init__(self) -> None:
        for field in fields(self):
            given, default = getattr(self, field.name), cast(float, field.default)
            option = f"augmentation option {field.name} = {given}"
            for number in given if isinstance(given, tuple | list) else (given,):
                check_number(f"augmentation option {field.name}", plain(number), -np.inf, np.inf)
            values = np.atleast_1d(given).astype(float)
            if _is_whole(default) and (values % 1).any():
                raise OptionError(f"{option}: must be whole")
            if values.shape != np.atleast_1d(default).shape:
                raise OptionError(f"{option}: must have the form of its default {field.default}")
            low, high = _BOUNDS.get(field.name, (0, 1 if "probabilit" in field.name else np.inf))
            if not ((values >= low) & (values <= high) & np.isfinite(values)).all():
                raise OptionError(f"{option}: must lie in {low} to {high}")
            if field.name != "border_probabilities" and (np.diff(values) < 0).any():
                raise OptionError(f"{option}: must go from low to high")
        if not np.isclose(sum(self.border_probabilities), 1):
            raise OptionError(f"augmentation option border_probabilities = {self.border_probabilities}: must sum to 1")


def _is_whole(default: Any) -> bool:
    """Whether the default of an option is an integer, or a range of integers."""
    return isinstance(np.atleast_1d(default)[0], np.integer)
