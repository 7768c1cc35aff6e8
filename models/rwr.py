"""Recurrence without recurrence (RwR): each frame's solve starts from the fixed point of the previous frame.

Faithful RwR gives every frame, including the first, the same few evaluations of plain fixed-point iteration: from zeros
on the first frame, and from the unchanged z*_{t-1} on the others. If the cell contracts so fast that two evaluations
come close to the fixed point from any start, this saves evaluations but hardly lowers the jitter. The paper defines RwR
by z_t = argmin ||z - z*_{t-1}||^2 subject to f(z) = z. `pull` approximates this by a proximal step. `carry` first moves
z*_{t-1} with the face, so that the pull acts against jitter and not against motion. These are pure functions;
`inference.streams.Streams` keeps z* from one frame to the next.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.values import check_choice, check_flag, check_integer, check_number

Carry = Literal["unchanged", "crop", "face"]

REWEIGHTINGS = 3

SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True, kw_only=True)
class RwRConfig:
    """How the frames of a video are solved one after another.

    With a pull, the state of each landmark is p * carried + (1 - p) * f(z). p equals `pull` if the new landmark agrees
    with the carried one, and falls with their distance d: p = pull / (1 + (d / (r u))^2), where u is the standard
    deviation of the heatmap and r is `release`. So sure landmarks that move (a blink) follow at once, and unsure ones
    stay. Latent channels use the median p of the landmarks.

    Attributes:
        max_iters: evaluations of the cell per frame, before the final one.
        final_evaluation: whether one more evaluation gives the landmarks.
        carry: how z*_{t-1} is moved: "unchanged", as in the original; "crop", resampled so that it keeps its place in
            the frame when the crop moves; "face", like "crop", and before the pull it is also moved with the face, by
            the similarity transform from the landmarks of the previous frame to the new ones.
        follow: share of this last motion, in (0, 1]; the rest counts as jitter of the whole face.
        pull: p in [0, 1); 0 is faithful RwR.
        release: r, positive; infinity keeps the pull constant.

    Raises:
        OptionError: an option is out of range.
    """

    max_iters: int = 1
    final_evaluation: bool = True
    carry: Carry = "unchanged"
    follow: float = 1.0
    pull: float = 0.0
    release: float = math.inf

    def __post_init__(self) -> None:
        check_integer("max_iters of RwR", self.max_iters, 1)
        check_flag("final_evaluation of RwR", self.final_evaluation)
        check_choice("carry of RwR", self.carry, get_args(Carry))
        check_number("follow of RwR", self.follow, 0, 1, open_below=True)
        check_number("pull of RwR", self.pull, 0, 1, open_above=True)
        check_number("release of RwR", self.release, 0, open_below=True, infinite=True)


VARIANTS: dict[str, RwRConfig] = {
    "faithful": RwRConfig(),
    "carried": RwRConfig(carry="crop"),
    "damped": RwRConfig(pull=0.3),
    "steady": RwRConfig(carry="face", follow=0.5, pull=0.4, release=0.5),
}
"""RwR of the original release; the same with the state moved with the crop; with a constant pull; and the variant with
the least jitter at the same accuracy (see docs/video.md)."""


@dataclass(frozen=True, eq=False)
class Carried:
    """The state of the previous frames, moved as `RwRConfig.carry` says.

    Attributes:
        state: (B, Z, H, W), the start of the solve.
        keypoints: (B, K, 2) of this state.
    """

    state: Tensor
    keypoints: Tensor


def warm_start(config: RwRConfig, state: Tensor, keypoints: Tensor, moved: Tensor | None) -> Carried:
    """The start of the next frames' solve.

    Args:
        config: how a frame is solved from the one before.
        state: (B, Z, H, W) of the frames before.
        keypoints: (B, K, 2) of the frames before.
        moved: (B, 2, 3) from the crops of the frames before to those of the next, see `change_of_crop`; None will do
            where `carry` is "unchanged".
    """
    if config.carry == "unchanged":
        return Carried(state, keypoints)
    return Carried(carry_state(state, moved), transform_points(keypoints, moved))


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
    if config.carry == "face":
        motion = partial_motion(fit_similarity(carried.keypoints, keypoints, deviation), config.follow)
        carried = Carried(carry_state(carried.state, motion), transform_points(carried.keypoints, motion))
    pull = config.pull * agreement(carried.keypoints, keypoints, deviation, config.release)
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


def partial_motion(matrices: Tensor, share: float) -> Tensor:
    """The affine maps (B, 2, 3) that move every point by a share of the given maps' motion."""
    identity = torch.eye(2, 3, dtype=matrices.dtype, device=matrices.device)
    return torch.lerp(identity.expand_as(matrices), matrices, share)


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


def fit_similarity(source: Tensor, target: Tensor, deviation: Tensor) -> Tensor:
    """The similarity transform from one set of landmarks to another, by reweighted least squares.

    A landmark has the weight 1 / deviation^2. Landmarks that do not move with the face (a blink, the mouth) get less,
    by the weights of a Cauchy distribution whose scale is computed from the median.

    Args:
        source: (B, K, 2).
        target: (B, K, 2).
        deviation: (B, K) standard deviation of the target.

    Returns:
        (B, 2, 3).
    """
    precision = deviation.clamp_min(SMALLEST_DEVIATION).square().reciprocal()
    matrices = weighted_similarity(source, target, precision)
    for _ in range(REWEIGHTINGS):
        distance = (transform_points(source, matrices) - target).norm(dim=2) * precision.sqrt()
        scale = 1.5 * distance.median(dim=1, keepdim=True).values + 1e-6
        matrices = weighted_similarity(source, target, precision / (1 + (distance / scale).square()))
    return matrices


def weighted_similarity(source: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Rotation, scale and shift with the smallest weighted squared distance (Umeyama, TPAMI 1991; no reflection).

    Args:
        source: (B, K, 2), not all at one place.
        target: (B, K, 2).
        weights: (B, K), positive.

    Returns:
        (B, 2, 3).
    """
    share = (weights / weights.sum(dim=1, keepdim=True)).unsqueeze(2)
    source_mean, target_mean = (share * source).sum(dim=1), (share * target).sum(dim=1)
    x, y = (source - source_mean.unsqueeze(1)).unbind(dim=2)
    u, v = (share * (target - target_mean.unsqueeze(1))).unbind(dim=2)
    spread = (share.squeeze(2) * (x.square() + y.square())).sum(dim=1)
    cosine, sine = (x * u + y * v).sum(dim=1) / spread, (x * v - y * u).sum(dim=1) / spread
    linear = torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)
    return torch.cat([linear, target_mean.unsqueeze(2) - linear @ source_mean.unsqueeze(2)], dim=2)
