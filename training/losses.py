"""Losses on landmarks: distances, and a likelihood that uses the heatmap's own uncertainty."""

import math

import torch
from torch import Tensor

# A heatmap narrower than this, in heatmap pixels, cannot represent a place between pixels.
NARROWEST_HEATMAP = 0.75
# Side of a typical face, root of the area of its landmark box, in the unit of the crop.
TYPICAL_FACE = 0.75


def landmark_distances(keypoints: Tensor, landmarks: Tensor) -> Tensor:
    """Euclidean distances: (B, K, 2), (B, K, 2) -> (B, K), with a finite gradient at zero."""
    return (keypoints - landmarks).square().sum(dim=2).clamp_min(1e-12).sqrt()


def face_size(landmarks: Tensor) -> Tensor:
    """Root of the area of the landmark box: (B, K, 2) -> (B,)."""
    extent = landmarks.amax(dim=1) - landmarks.amin(dim=1)
    return extent.prod(dim=1).clamp_min(1e-6).sqrt()


def laplace_scale(uncertainty: Tensor, heatmap_size: int) -> Tensor:
    """The scale b of an isotropic 2-D Laplace density whose standard deviation per axis is the heatmap's.

    The density exp(-d / b) / (2 pi b^2) has a variance of 3 b^2 per axis. Below `NARROWEST_HEATMAP` the scale is
    constant, so that the loss does not make a heatmap narrower.

    Args:
        uncertainty: (B, K) standard deviation in units of the crop.
        heatmap_size: pixels along a side of the heatmap.
    """
    return uncertainty.clamp_min(NARROWEST_HEATMAP / heatmap_size) / math.sqrt(3)


def landmark_loss(
    keypoints: Tensor, uncertainty: Tensor, landmarks: Tensor, heatmap_size: int, uncertainty_weight: float
) -> Tensor:
    """(1 - w) * distance relative to the face + w * negative log-likelihood of the heatmap as a Laplace density.

    Both are divided by the scale of the narrowest heatmap, b0: d / b0 and d / b + 2 log(b / b0). The distance is the
    error of the NME. The likelihood fits the width of a heatmap to its error (as LUVLi, Kumar et al., CVPR 2020, does
    with a Laplacian head) and keeps it from spreading. The distance alone does neither.

    Args:
        keypoints: (B, K, 2) in units of the crop.
        uncertainty: (B, K) in units of the crop.
        landmarks: (B, K, 2) true landmarks in units of the crop; points outside the crop are moved to its border.
        heatmap_size: pixels along a side of the heatmap.
        uncertainty_weight: w in [0, 1].

    Returns:
        (B,) one loss per face.
    """
    distances = landmark_distances(keypoints, landmarks.clamp(0, 1))
    scale = laplace_scale(uncertainty, heatmap_size)
    narrowest = laplace_scale(torch.zeros_like(uncertainty), heatmap_size)
    relative = distances * (TYPICAL_FACE / face_size(landmarks)).unsqueeze(1) / narrowest
    likelihood = distances / scale + 2 * torch.log(scale / narrowest)
    return torch.lerp(relative, likelihood, uncertainty_weight).mean(dim=1)


def jitter_loss(first_error: Tensor, second_error: Tensor, landmarks: Tensor, heatmap_size: int) -> Tensor:
    """Change of the error from one frame to the next, as in the NMJ.

    In the unit of `landmark_loss`: relative to the face, divided by the scale of the narrowest heatmap.

    Args:
        first_error: (B, K, 2) keypoints minus landmarks of the first view, in units of the crop.
        second_error: (B, K, 2) likewise for the second view.
        landmarks: (B, K, 2) of the second view, for the size of the face.
        heatmap_size: pixels along a side of the heatmap.

    Returns:
        (B,) one loss per face.
    """
    narrowest = laplace_scale(torch.zeros_like(first_error[:, :, 0]), heatmap_size)
    size = (TYPICAL_FACE / face_size(landmarks)).unsqueeze(1)
    return (landmark_distances(second_error, first_error) * size / narrowest).mean(dim=1)


def jacobian_penalty(image: Tensor, z: Tensor, probe: Tensor) -> Tensor:
    """Hutchinson's estimate of ||df/dz||_F^2, divided by the size of the state (Bai et al., ICML 2021).

    Args:
        image: f(z), (B, ...), with a graph back to z.
        z: (B, ...) requires a gradient.
        probe: (B, ...) standard normal.

    Returns:
        A scalar with a graph.
    """
    (product,) = torch.autograd.grad(image, z, probe, create_graph=True)
    return product.square().mean()
