"""Recurrence without recurrence (RwR): each frame's solve starts from the fixed point of the frame before.

Faithful RwR gives every frame, the first included, the same few evaluations by plain fixed-point iteration, from zeros
on the first frame and from z*_{t-1}, carried unchanged, on the others. Where the cell contracts so fast that two
evaluations come close to the fixed point from anywhere, such a start saves evaluations and steadies little. The
paper's own form is z_t = argmin ||z - z*_{t-1}||^2 subject to f(z) = z; `pull` approximates it by a proximal step, and
`carry` first moves z*_{t-1} to where the face is now, so that the pull acts against jitter and not against motion.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.errors import OptionError

Carry = Literal["unchanged", "crop", "face"]

REWEIGHTINGS = 3

SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True, kw_only=True)
class RwRConfig:
    """How the frames of a video are solved one after another.

    With a pull, the state of a frame is, landmark by landmark, p * carried + (1 - p) * f(z). p is `pull` where the
    landmark just found agrees with the carried one, and falls as they differ: p = pull / (1 + (d / (r u))^2), with the
    distance d, the standard deviation u of the heatmap and r of `release`. So sure landmarks that move (a blink) follow
    at once, and unsure ones stay. Latent channels follow the median landmark.

    Attributes:
        max_iters: evaluations of the cell per frame, before the final one.
        final_evaluation: whether one more evaluation gives the landmarks.
        carry: what happens to z*_{t-1}: "unchanged", as in the original; "crop", it is resampled so that it stays
            where it was in the frame although the crop has moved; "face", the same, and before the pull it is moved
            once more, with the face, by the similarity that takes the landmarks of the previous frame to those found.
        follow: share of that last motion, in (0, 1]; the rest is taken for jitter of the whole face.
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
        if self.max_iters < 1:
            raise OptionError(f"max_iters of RwR must be at least 1, not {self.max_iters}")
        if self.carry not in get_args(Carry):
            raise OptionError(f"carry of RwR must be one of {', '.join(get_args(Carry))}, not {self.carry!r}")
        if not 0 < self.follow <= 1:
            raise OptionError(f"follow of RwR must be above 0 and at most 1, not {self.follow}")
        if not 0 <= self.pull < 1:
            raise OptionError(f"pull of RwR must be at least 0 and below 1, not {self.pull}")
        if not self.release > 0:
            raise OptionError(f"release of RwR must be positive, not {self.release}")


VARIANTS: dict[str, RwRConfig] = {
    "faithful": RwRConfig(),
    "carried": RwRConfig(carry="crop"),
    "damped": RwRConfig(pull=0.3),
    "steady": RwRConfig(carry="face", follow=0.5, pull=0.4, release=0.5),
}
"""RwR of the original release; the same with the state moved as the crop moves; with a constant pull; and the steadiest
that costs no accuracy (see the README)."""


@dataclass(frozen=True, eq=False)
class Carried:
    """What was known of the frames before, moved to where the faces are now as far as `RwRConfig.carry` says.

    Attributes:
        state: (B, Z, H, W) that the solve of the frames starts from.
        keypoints: (B, K, 2) that go with it.
    """

    state: Tensor
    keypoints: Tensor


def warm_start(config: RwRConfig, state: Tensor, keypoints: Tensor, moved: Tensor | None) -> Carried:
    """Where the solve of the next frames starts.

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
    """The state of the frames between the one carried and the one found, see `RwRConfig`.

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
    """The affine maps (B, 2, 3) that move every point by a share of what the given ones do."""
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
    """Move a state as the landmarks in it move, bilinear, zero where it comes from outside.

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
    """The inverses of (B, 2, 2), not finite for one that is flat or not finite, and no error for those beside it.

    By the closed form: the routines of linear algebra libraries cannot all be captured in a CUDA graph.
    """
    (a, b), (c, d) = (row.unbind(dim=1) for row in matrices.unbind(dim=1))
    adjugate = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2)
    return adjugate / (a * d - b * c).view(-1, 1, 1)


def fit_similarity(source: Tensor, target: Tensor, deviation: Tensor) -> Tensor:
    """The similarity that takes one set of landmarks to another, by reweighted least squares.

    Landmarks weigh 1 / deviation^2, and those that move otherwise than the face does (a blink, the mouth) less: by the
    weights of a Cauchy distribution whose scale follows from the median.

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
    """Rotation, scale and shift of least weighted squared distance (Umeyama, TPAMI 1991, without reflection).

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
