"""Training augmentation of face crops with 98 landmarks: one geometric warp, then the faults of a camera.

The geometric part (crop, detector jitter, scale, rotation, stretch, flip and a synthetic head turn) is composed into a
single map from the source image to the crop, so the image is interpolated once. Every random draw comes from the
caller's generator, never from global state.
"""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from datasets.degradation import (
    adjust_gamma,
    compress_jpeg,
    low_resolution,
    motion_blur,
    occlude,
    sensor_noise,
    side_light,
)
from datasets.face_warp import HeadTurn, Warp, compose, face_frame
from training.augmentation_config import AugmentationConfig
from training.colour import channel_curves, duotone, posterise, shift_hue
from training.occluders import OCCLUDERS
from utils.errors import InputError
from utils.geometry import box_to_crop, landmark_box, transform_points

_BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE)


class Augmentation:
    """Random augmentation of one face.

    Args:
        config: Strengths.
        size: Crop side in pixels.

    Raises:
        InputError: If the size is below 8 pixels.
    """

    def __init__(self, config: AugmentationConfig, size: int) -> None:
        if size < 8:
            raise InputError(f"crop size {size}: must be at least 8 pixels")
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
            landmark outside the crop keeps its true place outside [0, 1].

        Raises:
            InputError: If a shape or type is wrong, a value is NaN, or the landmarks have no extent.
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
        with its own flicker of the light and its own noise. The first view has the distribution of a plain call, plus
        the flicker. Arguments and errors are those of a plain call.

        Returns:
            (crop, landmarks) of each view, and the (2, 3) float32 matrix from places in the first crop to places in the
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
        motion = compose(nearby.matrix, cv2.invertAffineTransform(warp.matrix))
        motion[:, 2] /= self.size
        first, second = views
        return first, second, motion.astype(np.float32)

    def flicker(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw a small change of brightness and gamma, as between frames, for an image (H, W, 3) uint8."""
        gain, gamma = np.exp(self.config.pair_light * generator.standard_normal(2))
        return channel_curves(image, np.full(3, gain), np.full(3, gamma))

    def sample_warp(self, image: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator) -> Warp:
        """Draw the geometric map for a face; arguments and errors are those of a plain call."""
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
        return Warp(compose(crop, about_centre), self.size, turn, mirrored, border)

    def perturb_warp(self, warp: Warp, generator: np.random.Generator) -> Warp:
        """Draw a map a few pixels away from another one, as the crop of the next video frame."""
        config = self.config
        centre = self.size / 2
        speed = config.pair_fast if generator.random() < config.pair_fast_probability else 1.0
        nearby: np.ndarray = cv2.getRotationMatrix2D(
            (centre, centre),
            speed * config.pair_rotation * generator.standard_normal(),
            float(np.exp(speed * config.pair_scale * generator.standard_normal())),
        )
        nearby[:, 2] += speed * config.pair_shift * self.size * generator.standard_normal(2)
        return replace(warp, matrix=compose(nearby, warp.matrix))

    def degrade(
        self, image: np.ndarray, landmarks: np.ndarray, scene: np.random.Generator, frame: np.random.Generator
    ) -> np.ndarray:
        """Draw and apply the faults that do not change the geometry: light, colour, occlusion, lens, sensor, codec.

        Args:
            image: (size, size, 3) RGB uint8; not modified.
            landmarks: (98, 2) over the crop side.
            scene: Generator for everything that all frames of a video share.
            frame: Generator for the sensor's noise.

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
            low, high = np.log(config.channel_gamma)
            gamma = np.exp(generator.uniform(low, high, 3))
            image = channel_curves(image, generator.uniform(*config.channel_gain, 3), gamma)
        if chance(config.permutation_probability):
            image = np.ascontiguousarray(image[..., generator.permutation(3)])
        if chance(config.duotone_probability):
            dark, light = generator.uniform(0, 255, (2, 3))
            image = duotone(image, dark, light, contrast=draw((0.5, 2)))
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
            np.rot90(image, int(scene.integers(4)))[:width] = 0
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
        """(2, 3) matrix from the pixels of the tight landmark box `box` to the crop."""
        config = self.config
        longer = np.ptp(box.reshape(2, 2), axis=0).max()
        # Beyond two standard deviations a detection would count as a miss.
        jitter = config.box_jitter * np.clip(generator.standard_normal(4), -2, 2)
        scale = generator.triangular(*config.crop_scale) if np.ptp(config.crop_scale) else config.crop_scale[0]
        crop = box_to_crop(box + longer * jitter, self.size, scale)
        room = max(0.0, 1 - 1 / scale) / 2 * self.size
        crop[:, 2] += config.shift * room * generator.triangular(-1, 0, 1, size=2)
        return crop


def _chances(
    generator: np.random.Generator,
) -> tuple[Callable[[float], bool], Callable[[tuple[float, float]], float]]:
    """Two functions: one draws whether an event of some probability happens, one draws a value from a range."""
    return lambda probability: generator.random() < probability, lambda low_high: float(generator.uniform(*low_high))


def _check_face(image: np.ndarray, landmarks: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"image of shape {image.shape} and type {image.dtype}: must be (H, W, 3) uint8")
    if landmarks.shape != (98, 2) or not np.isfinite(landmarks).all():
        raise InputError(f"landmarks of shape {landmarks.shape}: must be (98, 2) without NaN or infinity")
