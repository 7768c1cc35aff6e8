"""How often each face is drawn in training."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from utils.errors import OptionError

_NOSE_TIP, _LEFT_CONTOUR, _RIGHT_CONTOUR = 54, 4, 28


class Draw(NamedTuple):
    """One sample of an epoch, as a sampler asks for it.

    Attributes:
        index: Face in the dataset.
        epoch: Epoch, from 0.
        position: Place of the sample in the epoch over all processes. Seed, epoch and position decide the augmentation,
            so a face that comes twice in an epoch is augmented twice.
        views: 1, or 2 for the two nearby views of `Augmentation.pair`.
    """

    index: int  # type: ignore[assignment]  # hides the method of tuples
    epoch: int
    position: int
    views: int = 1


class PoseSampler(Sampler[Draw]):
    """Weighted sampling with replacement, the same for any number of processes and after a resume.

    Systematic sampling: a face with weight w comes floor or ceil of n w / sum(w) times among the n samples of an epoch,
    so no epoch misses or repeats faces by chance. The order is shuffled, and process r of W takes the positions r,
    r + W, ... If W does not divide n, the first samples are repeated at the end with new augmentation.

    Args:
        weights: (N,) sampling weight of each face, not negative.
        samples_per_epoch: n, over all processes.
        seed: Seed of every draw.
        rank: This process, from 0.
        world_size: Number of processes.
        views: Number of views (`Draw`) of the sample at an epoch and a position; None for 1.

    Raises:
        OptionError: If the weights cannot be sampled from, there are no samples, the seed is negative, or the rank is
            out of range.
    """

    def __init__(
        self,
        weights: np.ndarray,
        samples_per_epoch: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        views: Callable[[int, int], int] | None = None,
    ) -> None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise OptionError("sampling weights must be finite, not negative and not all zero, one for each face")
        if samples_per_epoch < 1:
            raise OptionError(f"samples_per_epoch = {samples_per_epoch}: must be at least 1")
        if seed < 0:
            raise OptionError(f"seed {seed}: must not be negative")
        if not 0 <= rank < world_size:
            raise OptionError(f"rank {rank} of {world_size} processes: must lie in 0 to world_size - 1")
        self.weights = weights
        self.samples_per_epoch = samples_per_epoch
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.views = views or (lambda epoch, position: 1)
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that the next iteration draws.

        Args:
            epoch: Epoch, from 0.
            start: Samples of that epoch, over all processes, that a run saw before it stopped.

        Raises:
            OptionError: If the epoch is negative, or the start is outside the epoch or inside a round of the processes.
        """
        if epoch < 0:
            raise OptionError(f"epoch {epoch}: must not be negative")
        if not 0 <= start <= self._padded_samples or start % self.world_size:
            raise OptionError(
                f"start {start}: must be a multiple of the {self.world_size} processes up to {self._padded_samples}"
            )
        self.epoch = epoch
        self.start = start

    @property
    def _padded_samples(self) -> int:
        return math.ceil(self.samples_per_epoch / self.world_size) * self.world_size

    def __len__(self) -> int:
        return (self._padded_samples - self.start) // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        generator = np.random.default_rng((self.seed, self.epoch))
        cumulative = np.cumsum(self.weights)
        points = (np.arange(self.samples_per_epoch) + generator.random()) / self.samples_per_epoch
        faces = np.searchsorted(cumulative / cumulative[-1], points, side="right")
        order = generator.permutation(faces).tolist()
        for position in range(self.start + self.rank, self._padded_samples, self.world_size):
            views = self.views(self.epoch, position)
            yield Draw(order[position % self.samples_per_epoch], self.epoch, position, views)


def share_weights(weights: np.ndarray, numbers: np.ndarray, shares: Sequence[float | None]) -> np.ndarray:
    """Sampling weights that give some lists a fixed share.

    Args:
        weights: (N,) sampling weights, which are kept in proportion within a list and among the lists without a share.
        numbers: (N,) number of the list of each face.
        shares: Share of each list in the sum of the weights, or None.

    Returns:
        (N,) float64, of sum 1.

    Raises:
        OptionError: If the shares leave nothing for the other lists.
    """
    fixed = np.array([share or 0.0 for share in shares])
    free = np.array([share is None for share in shares])
    rest = 1 - fixed.sum()
    if rest < -1e-9 or (free.any() and rest <= 0):
        raise OptionError(
            f"shares of the lists of faces sum to {fixed.sum():g}; they must leave something for the other lists"
        )
    sums = np.bincount(numbers, weights, len(shares))
    factors = np.where(free, rest / max(sums[free].sum(), np.finfo(float).tiny), fixed / sums)
    shared = weights * factors[numbers]
    return shared / shared.sum()


def profile_measure(landmarks: np.ndarray) -> np.ndarray:
    """A measure of the turn of faces to the side: |a - b| / (a + b).

    a and b are the distances of the nose tip (landmark 54) to the contour on either side (landmarks 4 and 28). 0 is
    frontal, above 0.7 a near profile.

    Args:
        landmarks: (N, 98, 2) in any unit.

    Returns:
        (N,) in [0, 1].
    """
    nose = landmarks[:, _NOSE_TIP]
    left = np.linalg.norm(landmarks[:, _LEFT_CONTOUR] - nose, axis=-1)
    right = np.linalg.norm(landmarks[:, _RIGHT_CONTOUR] - nose, axis=-1)
    return np.abs(left - right) / np.maximum(left + right, np.finfo(np.float64).tiny)


def pose_weights(landmarks: np.ndarray, boost: float = 10.0) -> np.ndarray:
    """Sampling weights in favour of turned faces: 1 + (boost - 1) min(1, m / 0.7)^3, where m is `profile_measure`.

    A frontal face has weight 1 and a near profile `boost`.

    Args:
        landmarks: (N, 98, 2) in any unit.
        boost: Weight of a near profile, at least 1; 1 samples all faces alike.

    Returns:
        (N,) float64.

    Raises:
        OptionError: If the boost is below 1.
    """
    if not boost >= 1:
        raise OptionError(f"pose boost {boost}: must be at least 1")
    return 1 + (boost - 1) * np.minimum(1, profile_measure(landmarks) / 0.7) ** 3
