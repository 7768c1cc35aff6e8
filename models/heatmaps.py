"""Heatmap normalisation and soft-argmax (section 3 of the paper)."""

from typing import Literal, get_args

import torch
from torch import Tensor

from utils.errors import OptionError
from utils.tensors import check_dense
from utils.values import check_choice

Normalisation = Literal["softargmax", "linear", "none"]

# Added to the mass of a heatmap before the division by it, as in the published checkpoints.
MASS_FLOOR = 1e-4


def exponential_heatmaps(raw: Tensor, beta: float) -> Tensor:
    """exp(beta * (h - max h)) over the pixels of each channel: (B, C, H, W) -> (B, C, H, W) in (0, 1]."""
    return torch.exp(beta * (raw - raw.amax(dim=(2, 3), keepdim=True)))


def linear_heatmaps(raw: Tensor) -> Tensor:
    """(h - min) / (max - min + 1e-5) over the pixels of each channel: (B, C, H, W) -> (B, C, H, W) in [0, 1)."""
    lowest = raw.amin(dim=(2, 3), keepdim=True)
    highest = raw.amax(dim=(2, 3), keepdim=True)
    return (raw - lowest) / (highest - lowest + 1e-5)


def normalise_heatmaps(raw: Tensor, normalisation: Normalisation, beta: float) -> Tensor:
    """The last operation of the cell, on all its channels: (B, C, H, W) -> (B, C, H, W).

    Raises:
        OptionError: If there is no such normalisation, or the heatmaps are not as above.
    """
    check_choice("normalisation", normalisation, get_args(Normalisation))
    check_dense("heatmaps", raw, 4)
    if normalisation == "softargmax":
        return exponential_heatmaps(raw, beta)
    return linear_heatmaps(raw) if normalisation == "linear" else raw


def soft_argmax(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Expected position and its standard deviation; a heatmap is treated as a distribution over its pixels.

    Args:
        heatmaps: (B, K, H, W), non-negative, H = W.

    Returns:
        keypoints (B, K, 2): x, y in [0, (H - 1) / H], column and row of the expectation over H, where the mass is
        increased by 1e-4 as in the published checkpoints; and uncertainty (B, K): sqrt((var x + var y) / 2) of the
        distribution, in the unit of the keypoints.

    Raises:
        OptionError: If the heatmaps are not as above.
    """
    check_dense("heatmaps", heatmaps, 4)
    if heatmaps.shape[2] != heatmaps.shape[3]:
        raise OptionError(f"heatmaps must be square, not of shape {tuple(heatmaps.shape)}")
    height = heatmaps.shape[2]
    positions = torch.arange(height, device=heatmaps.device, dtype=heatmaps.dtype) / height
    marginals = torch.stack([heatmaps.sum(dim=2), heatmaps.sum(dim=3)], dim=2)  # (B, K, 2, H): over x, over y
    mass = marginals.sum(dim=3)
    keypoints = (marginals * positions).sum(dim=3) / (mass + MASS_FLOOR)
    mass = mass.clamp_min(torch.finfo(mass.dtype).tiny)
    mean = (marginals * positions).sum(dim=3) / mass
    variance = (marginals * (positions - mean.unsqueeze(3)).square()).sum(dim=3) / mass
    # The floor keeps the gradient of the root finite for a heatmap that is a single pixel.
    return keypoints, variance.mean(dim=2).clamp_min(1e-12).sqrt()
