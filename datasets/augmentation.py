"""Training augmentation of face crops with 98 landmarks: one geometric warp, then the faults of a camera.

The geometric part (crop, detector jitter, scale, rotation, stretch, flip and a synthetic head turn) is composed into a
single map from the source image to the crop, so the image is interpolated once. Every draw comes from the generator of
the caller, never from global state.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from datasets.errors import DatasetError
from training.colour import channel_curves, duotone, posterise, shift_hue
from training.occluders import OCCLUDERS
from utils.geometry import box_to_crop, landmark_box, transform_points

_MIRRORED_PAIRS = (
    *((i, 32 - i) for i in range(16)),  # face contour
    *((33 + i, 46 - i) for i in range(5)),  # upper edge of the eyebrows
    *((38 + i, 50 - i) for i in range(4)),  # lower edge of the eyebrows
    *((55 + i, 59 - i) for i in range(2)),  # nostrils
    *((60 + i, 72 - i) for i in range(5)),  # upper eyelids with the eye corners
    *((65 + i, 75 - i) for i in range(3)),  # lower eyelids
    *((76 + i, 82 - i) for i in range(3)),  # outer upper lip
    *((83 + i, 87 - i) for i in range(2)),  # outer lower lip
    *((88 + i, 92 - i) for i in range(2)),  # inner upper lip
    (93, 95),  # inner lower lip
    (96, 97),  # pupils
)


def _flip_permutation() -> np.ndarray:
    permutation = np.arange(98)
    for left, right in _MIRRORED_PAIRS:
        permutation[[left, right]] = right, left
    permutation.setflags(write=False)
    return permutation


FLIP_PERMUTATION: np.ndarray = _flip_permutation()
"""(98,) index of the mirror partner of each WFLW landmark: mirrored landmarks are ``landmarks[FLIP_PERMUTATION]``."""

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
"""Lowest and highest value of the options that have other bounds than [0, 1] for a probability, [0, inf) else."""

_BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE)

# Relief of a face, in units of half its height: a Gaussian dome for the head and a Gaussian bump for the nose.
_DOME_HEIGHT = 0.8
_DOME_LENGTH = 1.0
_DOME_WIDTH = 0.75  # in half widths of the face
_NOSE_HEIGHT = 0.3
_NOSE_WIDTH = 0.3
_MAX_SLOPE = 0.85  # below 1 the turn is one-to-one: nothing folds over
_GAUSSIAN_MAX_SLOPE = np.exp(-0.5)  # of exp(-x^2 / 2)
_NEWTON_STEPS = 4
_GRID_STRIDE = 2  # the relief is smooth: solved on every second pixel, interpolated between


@dataclass(frozen=True)
class AugmentationConfig:
    """Strength of every part of the augmentation.

    A range is a pair (low, high) from which a value is drawn uniformly.

    Attributes:
        crop_scale: Crop side over the longer side of the landmark box, (low, mode, high) of a triangular distribution.
            Video crops have 1.2, the pre-cropped WFLW test faces 1.03 to 1.6.
        box_jitter: Standard deviation of each edge of the box, drawn independently, over its longer side: what a face
            detector does.
        shift: Largest shift of the crop, as a fraction of the room that the crop scale leaves around the box.
        rotation: Largest in-plane rotation, degrees, either way.
        large_rotation: Largest in-plane rotation of the few strongly rotated faces, degrees.
        large_rotation_probability: Share of the strongly rotated faces.
        stretch: Largest change of the aspect ratio, as the logarithm of width over height.
        shear: Largest shear, pixels per pixel.
        flip_probability: Share of mirrored faces.
        turn_probability: Share of faces that get a synthetic head turn (`HeadTurn`).
        turn_angle: Largest synthetic turn to the side, degrees.
        turn_away_probability: Share of the turns that go further to the side to which the face already looks; that is
            what makes near profiles.
        nod_angle: Largest synthetic turn up or down that comes with a turn, degrees.
        border_probabilities: Shares of (black, mirrored, repeated) pixels outside the source image. A test crop has
            black there; the others keep black frames from telling where the face is.
        pair_shift: Standard deviation of the second view's shift, over the crop side. These three are the motion of a
            talking head from frame to frame at 25 to 30 frames a second.
        pair_scale: Standard deviation of the logarithm of the second view's scale.
        pair_rotation: Standard deviation of the second view's rotation, degrees.
        pair_fast_probability: Share of the pairs that move fast.
        pair_fast: Factor of the motion of these.
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
        worn_probability: Share of faces with glasses, goggles, a mask or a hand before them (`training.occluders`).
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
        DatasetError: A value out of its bounds or not of the shape of the default, a range whose ends are swapped, or
            border shares that do not sum to 1.
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

    def __post_init__(self) -> None:
        for field in fields(self):
            values = np.atleast_1d(getattr(self, field.name)).astype(float)
            option = f"augmentation option {field.name} = {getattr(self, field.name)}"
            if values.shape != np.atleast_1d(field.default).shape:
                raise DatasetError(f"{option}: must have the form of its default {field.default}")
            low, high = _BOUNDS.get(field.name, (0, 1 if "probabilit" in field.name else np.inf))
            if not ((values >= low) & (values <= high) & np.isfinite(values)).all():
                raise DatasetError(f"{option}: must lie in {low} to {high}")
            if field.name != "border_probabilities" and (np.diff(values) < 0).any():
                raise DatasetError(f"{option}: must go from low to high")
        if not np.isclose(sum(self.border_probabilities), 1):
            raise DatasetError(f"augmentation option border_probabilities = {self.border_probabilities}: must sum to 1")


@dataclass(frozen=True, eq=False)
class HeadTurn:
    """Smooth one-to-one map of the image plane that makes a face look turned.

    Under orthographic projection, a turn of an object with relief d(x, y) moves a point by d sin(angle) in the
    direction of the turn and foreshortens that direction by cos(angle). The relief of a face is modelled as a Gaussian
    dome for the head plus a Gaussian bump at the nose tip. Lengths are in the face frame (`face_frame`).

    Attributes:
        to_face: (2, 3) matrix from source pixels to the face frame.
        nose: (2,) nose tip in the face frame.
        dome_width: Standard deviation of the dome across the face.
        tangents: (2,) tangents of the angles to the right and downwards.
    """

    to_face: np.ndarray
    nose: np.ndarray
    dome_width: float
    tangents: np.ndarray

    @classmethod
    def from_angles(cls, landmarks: np.ndarray, turn: float, nod: float) -> "HeadTurn":
        """Place the turn on a face, weakened where it would fold the image over.

        Args:
            landmarks: (98, 2) in source pixels.
            turn: Angle towards the image's right for an upright face, degrees; negative to the left.
            nod: Angle downwards, degrees; negative upwards.
        """
        to_face = face_frame(landmarks)
        face = transform_points(landmarks, to_face)
        dome_width = _DOME_WIDTH * np.ptp(face[:, 0]) / 2
        tangents = np.tan(np.radians([turn, nod]))
        slope = _GAUSSIAN_MAX_SLOPE * (_DOME_HEIGHT / min(dome_width, _DOME_LENGTH) + _NOSE_HEIGHT / _NOSE_WIDTH)
        tangents /= max(1.0, np.linalg.norm(tangents) * slope / _MAX_SLOPE)
        return cls(to_face, face[54], float(dome_width), tangents)

    def transform(self, points: np.ndarray) -> np.ndarray:
        """Move points (..., 2) in source pixels with the turn."""
        face = transform_points(points, self.to_face)
        relief, _ = self._relief(face[..., 0], face[..., 1])
        turned = (face + relief[..., None] * self.tangents) * np.cos(np.arctan(self.tangents))
        return transform_points(turned, self.to_face, inverse=True)

    def source_maps(self, to_source: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel of a crop comes from.

        The relief s under a turned point q solves s = d(q - s * tangents); Newton's method on a coarse grid, then cubic
        interpolation.

        Args:
            to_source: (2, 3) matrix from crop pixels to source pixels after the turn.
            size: Crop side in pixels.

        Returns:
            x and y in source pixels before the turn, float32 (size, size) each: the maps of `cv2.remap`.
        """
        to_face = _compose(self.to_face, to_source)
        to_face /= np.cos(np.arctan(self.tangents))[:, None]
        cells = -(-size // _GRID_STRIDE)
        stride = size / cells
        # Pixel centres, as cv2.resize sees them: coarse pixel i covers the fine pixels from i * stride.
        x, y = _affine_grid(to_face, (np.arange(cells, dtype=np.float32) + 0.5) * stride - 0.5)
        tx, ty = self.tangents.astype(np.float32)
        relief, _ = self._relief(x, y)
        for _ in range(_NEWTON_STEPS):
            value, slope = self._relief(x - relief * tx, y - relief * ty)
            relief = np.clip(relief - (relief - value) / (1 + slope), 0, _DOME_HEIGHT + _NOSE_HEIGHT)
        relief = cv2.resize(relief, (size, size), interpolation=cv2.INTER_CUBIC)
        x, y = _affine_grid(
            _compose(cv2.invertAffineTransform(self.to_face), to_face), np.arange(size, dtype=np.float32)
        )
        shift = (np.linalg.inv(self.to_face[:, :2]) @ self.tangents).astype(np.float32)
        return x - shift[0] * relief, y - shift[1] * relief

    def _relief(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Relief at a place of the face frame, and its derivative along the tangents."""
        tx, ty = (float(tangent) for tangent in self.tangents)
        dome_x, dome_y = x / self.dome_width, y / _DOME_LENGTH
        nose_x, nose_y = (x - float(self.nose[0])) / _NOSE_WIDTH, (y - float(self.nose[1])) / _NOSE_WIDTH
        dome = _DOME_HEIGHT * np.exp(-0.5 * (dome_x * dome_x + dome_y * dome_y))
        nose = _NOSE_HEIGHT * np.exp(-0.5 * (nose_x * nose_x + nose_y * nose_y))
        slope = dome * (dome_x * (tx / self.dome_width) + dome_y * (ty / _DOME_LENGTH))
        slope += nose * (nose_x * (tx / _NOSE_WIDTH) + nose_y * (ty / _NOSE_WIDTH))
        return dome + nose, -slope


@dataclass(frozen=True, eq=False)
class Warp:
    """The whole geometric map from a source image to a crop.

    Attributes:
        matrix: (2, 3) matrix from source pixels (after the turn) to crop pixels.
        size: Crop side in pixels.
        turn: The head turn that comes first, or None.
        mirrored: Whether the matrix mirrors the face, so that left and right landmarks change their names.
        border: OpenCV border mode outside the source image.
    """

    matrix: np.ndarray
    size: int
    turn: HeadTurn | None = None
    mirrored: bool = False
    border: int = cv2.BORDER_CONSTANT

    def image(self, image: np.ndarray) -> np.ndarray:
        """Warp an image (H, W, 3) uint8 to (size, size, 3), bilinear."""
        if self.turn is None:
            return cv2.warpAffine(image, self.matrix, (self.size, self.size), borderMode=self.border)
        maps = self.turn.source_maps(cv2.invertAffineTransform(self.matrix), self.size)
        return cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=self.border)

    def landmarks(self, landmarks: np.ndarray) -> np.ndarray:
        """Map landmarks (98, 2) in source pixels to crop coordinates, float32; [0, 1] is the inside of the crop."""
        points = landmarks if self.turn is None else self.turn.transform(landmarks)
        points = transform_points(points, self.matrix) / self.size
        return (points[FLIP_PERMUTATION] if self.mirrored else points).astype(np.float32)


class Augmentation:
    """Random augmentation of one face.

    Args:
        config: Strengths.
        size: Crop side in pixels.

    Raises:
        DatasetError: A size below 8 pixels.
    """

    def __init__(self, config: AugmentationConfig, size: int) -> None:
        if size < 8:
            raise DatasetError(f"crop size {size}: must be at least 8 pixels")
        self.config = config
        self.size = size

    def __call__(
        self, image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment a face.

        Args:
            image: (H, W, 3) RGB uint8.
            landmarks: (98, 2) pixels of the image.
            generator: Source of every draw: the same state gives the same result.

        Returns:
            The crop (size, size, 3) RGB uint8, and its landmarks (98, 2) float32, x and y over the crop side. A
            landmark that the crop cut off keeps its true place outside [0, 1].

        Raises:
            DatasetError: Wrong shape or type, NaN, or landmarks without extent.
        """
        warp = self.sample_warp(image, landmarks, generator)
        points = warp.landmarks(landmarks)
        scene, frame = generator.spawn(2)
        return self.degrade(warp.image(image), points, scene, frame), points

    def pair(
        self, image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Two views of a face like two frames of a video.

        The crops are a few pixels apart. Both show the same scene (colours, occluders, lens, sensor and codec), each
        with its own flicker of the light and its own noise. The first view is distributed as that of a plain call, but
        for the flicker. Arguments and errors as there.

        Returns:
            (crop, landmarks) of either view, and the (2, 3) float32 matrix that takes places in the first crop to the
            second, both in units of the crop side.
        """
        warp = self.sample_warp(image, landmarks, generator)
        nearby = self.perturb_warp(warp, generator)
        scene_seed = generator.integers(2**63)
        views = []
        for view in (warp, nearby):
            points = view.landmarks(landmarks)
            crop = self.degrade(view.image(image), points, np.random.default_rng(scene_seed), generator)
            views.append((self.flicker(crop, generator), points))
        motion = _compose(nearby.matrix, cv2.invertAffineTransform(warp.matrix))
        motion[:, 2] /= self.size
        return *views, motion.astype(np.float32)

    def flicker(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw a small change of brightness and gamma, as between frames, for an image (H, W, 3) uint8."""
        gain, gamma = np.exp(self.config.pair_light * generator.standard_normal(2))
        return channel_curves(image, np.full(3, gain), np.full(3, gamma))

    def sample_warp(self, image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator) -> Warp:
        """Draw the geometric map for a face; arguments and errors as for a call."""
        _check_face(image, landmarks)
        config = self.config
        turn = None
        if generator.random() < config.turn_probability:
            turn = self._sample_turn(landmarks, generator)
            landmarks = turn.transform(landmarks)
        mirrored = bool(generator.random() < config.flip_probability)
        linear = self._sample_linear(generator)
        if mirrored:
            linear[:, 0] *= -1
        centre = landmark_box(landmarks).reshape(2, 2).mean(axis=0)
        about_centre = np.column_stack([linear, centre - linear @ centre])
        crop = self._sample_crop(landmark_box(transform_points(landmarks, about_centre)), generator)
        border = int(generator.choice(_BORDERS, p=config.border_probabilities))
        return Warp(_compose(crop, about_centre), self.size, turn, mirrored, border)

    def perturb_warp(self, warp: Warp, generator: np.random.Generator) -> Warp:
        """Draw a map a few pixels away from another one, as the crop of the next video frame."""
        config = self.config
        centre = self.size / 2
        speed = config.pair_fast if generator.random() < config.pair_fast_probability else 1.0
        nearby = cv2.getRotationMatrix2D(
            (centre, centre),
            speed * config.pair_rotation * generator.standard_normal(),
            float(np.exp(speed * config.pair_scale * generator.standard_normal())),
        )
        nearby[:, 2] += speed * config.pair_shift * self.size * generator.standard_normal(2)
        return replace(warp, matrix=_compose(nearby, warp.matrix))

    def degrade(
        self, image: np.ndarray, landmarks: np.ndarray, scene: np.random.Generator, frame: np.random.Generator
    ) -> np.ndarray:
        """Draw and apply the faults that leave the geometry alone: light, colour, occlusion, lens, sensor, codec.

        Args:
            image: (size, size, 3) RGB uint8; not modified.
            landmarks: (98, 2) over the crop side.
            scene: Source of what all frames of a video have in common.
            frame: Source of the sensor's noise.

        Returns:
            RGB uint8 of the same shape.
        """
        image = self._colour(image, scene)
        image = self._occlude(image, landmarks, scene)
        return self._record(image, scene, frame)

    def _colour(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        config = self.config
        chance, draw = _chances(generator)
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        if chance(config.colour_probability):
            tensor = F.adjust_brightness(tensor, draw(config.brightness))
        if chance(config.colour_probability):
            tensor = F.adjust_contrast(tensor, draw(config.contrast))
        if chance(config.colour_probability):
            tensor = F.adjust_saturation(tensor, draw(config.saturation))
        image = np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
        if chance(config.hue_probability):
            image = shift_hue(image, draw((-config.hue, config.hue)))
        if chance(config.colour_probability):
            image = adjust_gamma(image, draw(config.gamma))
        if chance(config.channel_probability):
            gamma = np.exp(generator.uniform(*np.log(config.channel_gamma), 3))
            image = channel_curves(image, generator.uniform(*config.channel_gain, 3), gamma)
        if chance(config.permutation_probability):
            image = np.ascontiguousarray(image[..., generator.permutation(3)])
        if chance(config.duotone_probability):
            image = duotone(image, *generator.uniform(0, 255, (2, 3)), contrast=draw((0.5, 2)))
        if chance(config.posterise_probability):
            image = posterise(image, int(generator.integers(*config.posterise_levels, endpoint=True)))
        if chance(config.side_light_probability):
            image = side_light(image, draw(config.side_light), draw((0, 2 * np.pi)))
        return image

    def _occlude(self, image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        config = self.config
        chance, _ = _chances(generator)
        if chance(config.worn_probability):
            worn = OCCLUDERS[generator.integers(len(OCCLUDERS))]
            image = worn(image, landmarks.astype(float) * self.size, generator)
        if chance(config.occlusion_probability):
            for _ in range(generator.integers(1, config.occlusion_count, endpoint=True)):
                image = occlude(image, config.occlusion_size, generator)
        return image

    def _record(self, image: np.ndarray, scene: np.random.Generator, frame: np.random.Generator) -> np.ndarray:
        config = self.config
        chance, draw = _chances(scene)
        if chance(config.low_resolution_probability):
            image = low_resolution(image, draw(config.low_resolution))
        if chance(config.blur_probability):
            image = cv2.GaussianBlur(image, (0, 0), draw(config.blur) * self.size)
        if chance(config.motion_blur_probability):
            image = motion_blur(image, draw(config.motion_blur) * self.size, draw((0, np.pi)))
        if chance(config.noise_probability):
            image = sensor_noise(image, draw(config.noise), frame)
        if chance(config.grayscale_probability):
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if chance(config.jpeg_probability):
            image = compress_jpeg(image, round(draw(config.jpeg_quality)))
        if chance(config.picture_edge_probability):
            width = round(draw(config.picture_edge) * self.size)
            image = image.copy()
            np.rot90(image, scene.integers(4))[:width] = 0
        return image

    def _sample_turn(self, landmarks: np.ndarray, generator: np.random.Generator) -> HeadTurn:
        config = self.config
        towards = np.sign(transform_points(landmarks[54], face_frame(landmarks))[0]) or 1.0
        if generator.random() >= config.turn_away_probability:
            towards = -towards
        angle = towards * generator.uniform(0, config.turn_angle)
        return HeadTurn.from_angles(landmarks, angle, generator.uniform(-config.nod_angle, config.nod_angle))

    def _sample_linear(self, generator: np.random.Generator) -> np.ndarray:
        """(2, 2) rotation x shear x stretch."""
        config = self.config
        large = generator.random() < config.large_rotation_probability
        limit = config.large_rotation if large else config.rotation
        angle = np.radians(generator.uniform(-limit, limit))
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shear = np.array([[1, generator.uniform(-config.shear, config.shear)], [0, 1]])
        stretch = np.exp(generator.uniform(-config.stretch, config.stretch) * np.array([0.5, -0.5]))
        return rotation @ shear * stretch

    def _sample_crop(self, box: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(2, 3) matrix from the pixels in which the face has the tight landmark box `box` to the crop."""
        config = self.config
        longer = np.ptp(box.reshape(2, 2), axis=0).max()
        # Beyond two standard deviations a detection would count as a miss.
        jitter = config.box_jitter * np.clip(generator.standard_normal(4), -2, 2)
        scale = generator.triangular(*config.crop_scale) if np.ptp(config.crop_scale) else config.crop_scale[0]
        crop = box_to_crop(box + longer * jitter, self.size, scale)
        room = max(0.0, 1 - 1 / scale) / 2 * self.size
        crop[:, 2] += config.shift * room * generator.triangular(-1, 0, 1, size=2)
        return crop


def face_frame(landmarks: np.ndarray) -> np.ndarray:
    """Upright frame of a face.

    Args:
        landmarks: (98, 2) in pixels.

    Returns:
        (2, 3) matrix from pixels to the frame whose origin is the centre of the face, whose y axis points from the eyes
        to the mouth, and whose unit is half the height of the landmarks along that axis.

    Raises:
        DatasetError: The eyes and the mouth are at one place, or all landmarks on one line along or across the face.
    """
    down = landmarks[[76, 82]].mean(axis=0) - landmarks[[60, 72]].mean(axis=0)
    length = np.linalg.norm(down)
    if not length > 0:
        raise DatasetError("landmarks without extent: the eyes and the mouth are at one place")
    down = down / length
    axes = np.array([[down[1], -down[0]], down])
    along = landmarks @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    if not (high > low).all():
        raise DatasetError("landmarks without extent: they all lie on one line")
    return np.column_stack([axes, -(low + high) / 2]) / ((high[1] - low[1]) / 2)


def adjust_gamma(image: np.ndarray, gamma: float) -> np.ndarray:
    """Raise the intensities of an image (H, W, 3) uint8, in [0, 1], to the power of gamma.

    By table, twelve times as fast as torchvision's power of every pixel.
    """
    table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return cv2.LUT(image, table)


def side_light(image: np.ndarray, strength: float, angle: float) -> np.ndarray:
    """Light an image (H, W, 3) uint8 from a direction: factor 1 + strength at one end of it, 1 - strength at the other.

    Args:
        image: RGB uint8.
        strength: In [0, 1].
        angle: Direction of the light, radians.
    """
    height, width = image.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(np.sin(angle))
    factor = 1 + np.float32(strength) * np.clip(x + y[:, None], -1, 1)
    return np.minimum(image * factor[..., None], 255).astype(np.uint8)


def occlude(image: np.ndarray, size: tuple[float, float], generator: np.random.Generator) -> np.ndarray:
    """Hide a random rotated rectangle or ellipse behind one colour, coloured noise or another part of the image.

    Args:
        image: (S, S, 3) RGB uint8; not modified.
        size: Range of the occluder's width and height, over S.
        generator: Source of every draw.
    """
    side = image.shape[0]
    shape = (
        tuple(float(value) for value in generator.uniform(0, side, 2)),
        tuple(float(value) for value in generator.uniform(*size, 2) * side),
        float(generator.uniform(0, 180)),
    )
    mask = np.zeros((side, side), np.uint8)
    if generator.random() < 0.5:
        cv2.ellipse(mask, shape, 255, -1)
    else:
        cv2.fillConvexPoly(mask, np.round(cv2.boxPoints(shape)).astype(np.int32), 255)
    filling = generator.integers(3)
    if filling == 0:
        occluder = np.full_like(image, generator.integers(0, 256, 3, np.uint8))
    elif filling == 1:
        grain = int(generator.integers(2, side // 2, endpoint=True))
        noise = generator.integers(0, 256, (grain, grain, 3), np.uint8)
        occluder = cv2.resize(noise, (side, side), interpolation=cv2.INTER_LINEAR)
    else:
        occluder = np.roll(image, generator.integers(side // 4, side - side // 4, 2), axis=(0, 1))
    return cv2.copyTo(occluder, mask, image.copy())


def low_resolution(image: np.ndarray, factor: float) -> np.ndarray:
    """Shrink an image (H, W, 3) uint8 by a factor in (0, 1] and enlarge it again."""
    height, width = image.shape[:2]
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))


def motion_blur(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Blur an image (H, W, 3) uint8 along a line of `length` pixels at `angle` radians, centred on each pixel."""
    radius = int(np.ceil(length / 2))
    along = np.linspace(-length / 2, length / 2, 4 * radius + 1)
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    rows = np.rint(radius + along * np.sin(angle)).astype(int)
    columns = np.rint(radius + along * np.cos(angle)).astype(int)
    np.add.at(kernel, (rows, columns), 1 / along.size)
    return cv2.filter2D(image, -1, kernel)


def sensor_noise(image: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of a standard deviation over the full intensity range to an image (H, W, 3) uint8."""
    noise = generator.standard_normal(image.shape, np.float32) * np.float32(255 * deviation)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def compress_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode an image (H, W, 3) RGB uint8 as JPEG of a quality in 1 to 100 and decode it again."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _chances(
    generator: np.random.Generator,
) -> tuple[Callable[[float], bool], Callable[[tuple[float, float]], float]]:
    """Two functions that draw: whether something of a probability happens, and a value of a range."""
    return lambda probability: generator.random() < probability, lambda low_high: float(generator.uniform(*low_high))


def _check_face(image: np.ndarray, landmarks: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DatasetError(f"image of shape {image.shape} and type {image.dtype}: must be (H, W, 3) uint8")
    if landmarks.shape != (98, 2) or not np.isfinite(landmarks).all():
        raise DatasetError(f"landmarks of shape {landmarks.shape}: must be (98, 2) without NaN or infinity")


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """(2, 3) matrix that applies `inner`, then `outer`."""
    linear = outer[:, :2] @ inner
    linear[:, 2] += outer[:, 2]
    return linear


def _affine_grid(matrix: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of all (x, y) with x and y in `positions` (N,) under a (2, 3) matrix: two arrays (N, N), rows along y."""
    (xx, xy, x0), (yx, yy, y0) = matrix.astype(np.float32)
    column = positions[:, None]
    return xx * positions + (xy * column + x0), yx * positions + (yy * column + y0)
