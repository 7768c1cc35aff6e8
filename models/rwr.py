"""Recurrence without recurrence (RwR): each frame's solve starts from the fixed point of the previous frame.

Faithful RwR gives every frame, including the first, the same few evaluations of plain fixed-point iteration: from zeros
on the first frame, and from the unchanged z*_{t-1} on the others. If the cell contracts so fast that two evaluations
come close to the fixed point from any start, this saves evaluations but hardly lowers the jitter. The paper defines RwR
by z_t = argmin ||z - z*_{t-1}||^2 subject to f(z) = z. `pull` approximates this by a proximal step. `carry` first moves
z*_{t-1} with the face, so that the pull acts against jitter and not against motion. These are pure functions;
`inference.streams.Streams` keeps z* from one frame to the next, and `inference.optical_flow` measures the motion.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.values import check_choice, check_flag, check_integer, check_number

Carry = Literal["unchanged", "crop", "flow"]

MISMATCH = 1 / 256
"""Difference between the optical flow there and back, in crops, at which a landmark's pull falls to a half."""

SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True, kw_only=True)
class RwRConfig:
    """How the frames of a video are solved one after another.

    With a pull, the state of each landmark is p * carried + (1 - p) * f(z). p equals `pull` if the new landmark agrees
    with the carried one, and falls with their distance d: p = pull / (1 + (d / (r u))^2), where u is the standard
    deviation of the heatmap and r is `release`. So sure landmarks that moved otherwise follow at once, and unsure ones
    stay. Latent channels use the median p of the landmarks.

    Attributes:
        max_iters: evaluations of the cell per frame, before the final one.
        final_evaluation: whether one more evaluation gives the landmarks.
        carry: how z*_{t-1} is moved: "unchanged", as in the original; "crop", resampled so that it keeps its place in
            the frame when the crop moves; "flow", like "crop", and each landmark's heatmap also moves with the optical
            flow at the landmark. If the flow there and back differ by e, p is divided by 1 + (e / `MISMATCH`)^2.
        pull: p in [0, 1); 0 is faithful RwR.
        release: r, positive; infinity keeps the pull constant.

    Raises:
        OptionError: an option is out of range.
    """

    max_iters: int = 1
    final_evaluation: bool = True
    carry: Carry = "unchanged"
    pull: float = 0.0
    release: float = math.inf

    def __post_init__(self) -> None:
        check_integer("max_iters of RwR", self.max_iters, 1)
        check_flag("final_evaluation of RwR", self.final_evaluation)
        check_choice("carry of RwR", self.carry, get_args(Carry))
        check_number("pull of RwR", self.pull, 0, 1, open_above=True)
        check_number("release of RwR", self.release, 0, open_below=True, infinite=True)


VARIANTS: dict[str, RwRConfig] = {
    "faithful": RwRConfig(),
    "carried": RwRConfig(carry="crop"),
    "damped": RwRConfig(pull=0.3),
    "steady": RwRConfig(carry="flow", pull=0.5, release=1.0),
}
"""RwR of the original release; the same with the state moved with the crop; with a constant pull; and the variant with
the least jitter at the same accuracy (see docs/video.md)."""


@dataclass(frozen=True, eq=False)
class Carried:
    """The state of the previous frames, moved as `RwRConfig.carry` says.

    Attributes:
        state: (B, Z, H, W), the start of the solve.
        keypoints: (B, K, 2) of this state.
        trust: (B, K) in [0, 1], how well the motion of each landmark is known; None if it was not measured.
    """

    state: Tensor
    keypoints: Tensor
    trust: Tensor | None = None


def warm_start(
    config: RwRConfig, state: Tensor, keypoints: Tensor, moved: Tensor | None, flow: Tensor | None = None
) -> Carried:
    """The start of the next frames' solve.

    Args:
        config: how a frame is solved from the one before.
        state: (B, Z, H, W) of the frames before.
        keypoints: (B, K, 2) of the frames before.
        moved: (B, 2, 3) from the crops of the frames before to those of the next, see `change_of_crop`; None will do
            where `carry` is "unchanged".
        flow: (B, 4, h, w) see `follow_flow`; None will do unless `carry` is "flow".
    """
    if config.carry == "unchanged":
        return Carried(state, keypoints)
    if moved is None:
        raise ValueError(f"carry {config.carry!r} needs the motion of the crops")
    keypoints = transform_points(keypoints, moved)
    if config.carry == "crop":
        return Carried(carry_state(state, moved), keypoints)
    if flow is None:
        raise ValueError(f"carry {config.carry!r} needs the optical flow")
    steps, mismatch = follow_flow(flow, keypoints)
    latent = steps.median(dim=1, keepdim=True).values.expand(-1, state.shape[1] - steps.shape[1], -1)
    maps = moved.unsqueeze(1).repeat(1, state.shape[1], 1, 1)
    maps[..., 2] += torch.cat([steps, latent], dim=1)
    moved_state = carry_state(state.flatten(0, 1).unsqueeze(1), maps.flatten(0, 1)).view_as(state)
    return Carried(moved_state, keypoints + steps, 1 / (1 + (mismatch / MISMATCH).square()))


def follow_flow(flow: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The optical flow at some points.

    Args:
        flow: (B, 4, h, w) x, y of the motion from the earlier picture to the later one, and x, y of the motion back, in
            [0, 1] of the crop; bilinear between the pixels, constant outside.
        points: (B, K, 2) in the earlier picture.

    Returns:
        (B, K, 2) the motion, and (B, K) the distance from a point to where the flow back takes the moved point.
    """
    forward, backward = flow.chunk(2, dim=1)
    steps = sample_field(forward, points)
    return steps, (steps + sample_field(backward, points + steps)).norm(dim=2)


def sample_field(field: Tensor, points: Tensor) -> Tensor:
    """The values (B, K, C) of a field (B, C, h, w) at points (B, K, 2), as `carry_state` counts coordinates."""
    height, width = field.shape[2:]
    x, y = points.unbind(dim=2)
    grid = torch.stack([2 * x + 1 / width - 1, 2 * y + 1 / height - 1], dim=2).unsqueeze(1)
    found = F.grid_sample(field, grid, padding_mode="border", align_corners=False)
    return found.squeeze(2).transpose(1, 2)


def pull_back(config: RwRConfig, carried: Carried, found: Tensor, keypoints: Tensor, deviation: Tensor) -> Tensor:
    """The state of the frames, between the carried state and the found state, see `RwRConfig`.

    Args:
        config: with a pull.
        carried: what the solve started from.
        found: (B, Z, H, W) the state that it found.
        keypoints: (B, K, 2) of that state.
        deviation: (B, K) standard deviation of its heatmaps.

    Returns:
        (B, Z, H, W).
    """
    pull = config.pull * agreement(carried.keypoints, keypoints, deviation, config.release)
    if carried.trust is not None:
        pull = pull * carried.trust
    latent = pull.median(dim=1, keepdim=True).values.expand(-1, found.shape[1] - keypoints.shape[1])
    return torch.lerp(found, carried.state, torch.cat([pull, latent], dim=1).unsqueeze(2).unsqueeze(3))


def agreement(carried: Tensor, found: Tensor, deviation: Tensor, release: float) -> Tensor:
    """1 / (1 + (d / (release * u))^2) of two sets of landmarks.

    Args:
        carried: (B, K, 2).
        found: (B, K, 2).
        deviation: (B, K) u, standard deviation of what was found.
        release: distance over u at which the agreement is a half.

    Returns:
        (B, K) in (0, 1].
    """
    distance = (carried - found).norm(dim=2) / (release * deviation.clamp_min(SMALLEST_DEVIATION))
    return 1 / (1 + distance.square())


def change_of_crop(before: Tensor, after: Tensor) -> Tensor:
    """The map from the coordinates of one crop of a frame to those of another.

    Args:
        before: (B, 2, 3) from frame pixels to the first crop.
        after: (B, 2, 3) from frame pixels to the second.

    Returns:
        (B, 2, 3).
    """
    linear = after[:, :, :2] @ invert_2x2(before[:, :, :2])
    return torch.cat([linear, after[:, :, 2:] - linear @ before[:, :, 2:]], dim=2)


def transform_points(points: Tensor, matrices: Tensor) -> Tensor:
    """(B, K, 2) points by (B, 2, 3) affine maps."""
    return points @ matrices[:, :, :2].transpose(1, 2) + matrices[:, :, 2].unsqueeze(1)


def carry_state(state: Tensor, matrices: Tensor) -> Tensor:
    """Move a state together with its landmarks, by bilinear sampling, with zeros from outside.

    Args:
        state: (B, Z, H, W), a landmark at column j, row i having the coordinates (j / W, i / H).
        matrices: (B, 2, 3) from old to new coordinates.

    Returns:
        (B, Z, H, W).
    """
    height, width = state.shape[2:]
    inverse, shift = invert_2x2(matrices[:, :, :2]), matrices[:, :, 2]
    # The coordinates of the grid go from -1 to 1 between the borders of the outer pixels, those of landmarks count from
    # the centre of the first pixel: u = 2 p + pixel - 1.
    offset = torch.stack([1 - 1 / width - 2 * shift[:, 0], 1 - 1 / height - 2 * shift[:, 1]], dim=1)
    x, y = (inverse @ offset.unsqueeze(2)).unbind(dim=1)
    backward = torch.cat([inverse, torch.stack([x + 1 / width - 1, y + 1 / height - 1], dim=1)], dim=2)
    grid = F.affine_grid(backward, [len(state), 1, height, width], align_corners=False)
    return F.grid_sample(state, grid, align_corners=False)


def invert_2x2(matrices: Tensor) -> Tensor:
    """The inverses of (B, 2, 2); singular matrices, and those that are not finite, give values that are not finite.

    Uses the closed form: not all routines of linear algebra libraries can be captured in a CUDA graph.
    """
    (a, b), (c, d) = (row.unbind(dim=1) for row in matrices.unbind(dim=1))
    adjugate = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2)
    return adjugate / (a * d - b * c).view(-1, 1, 1)
