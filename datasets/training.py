"""Training faces: augmented samples that depend on (seed, epoch, position) alone, and sampling by head pose.

Any number of workers or processes, and a run that was resumed in the middle of an epoch, see the same samples.
"""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from datasets.augmentation import Augmentation
from datasets.errors import DatasetError
from datasets.wflw import Face, read_faces
from utils.images import to_network_input

LABEL_QUALITY_FILE = "label_quality.tsv"
DISAGREEMENT_COLUMN = "teacher_disagreement_pct_interocular"
_NOSE_TIP, _LEFT_CONTOUR, _RIGHT_CONTOUR = 54, 4, 28


class Draw(NamedTuple):
    """One sample of an epoch, as a sampler asks for it.

    Attributes:
        index: Face in the dataset.
        epoch: Epoch, from 0.
        position: Place of the sample in the epoch over all processes; with the seed and the epoch it fixes the
            augmentation, so a face that comes twice in an epoch is augmented twice.
        views: 1, or 2 for the two nearby views of `Augmentation.pair`, which a warm start can go between.
    """

    index: int
    epoch: int
    position: int
    views: int = 1


class TrainingSample(NamedTuple):
    """One augmented face; PyTorch's default collation makes a batch of the same type.

    Attributes:
        image: (3, S, S) float32 RGB, normalised as for ImageNet; (2, 3, S, S) with two views.
        landmarks: (98, 2) float32 x, y over the crop side; (2, 98, 2) with two views. Slightly outside [0, 1] where the
            crop cut a landmark off.
        weight: () float32 weight of the label in (0, 1].
        motion: (2, 3) float32 affine map of places in the first view, over the crop side, to the second; the identity
            with one view.
    """

    image: torch.Tensor
    landmarks: torch.Tensor
    weight: torch.Tensor
    motion: torch.Tensor


class TrainingFaces(Dataset[TrainingSample]):
    """Augmented faces of one or several lists.

    Items are asked for by a `Draw` (what `PoseSampler` yields) or by an index, which is that face in epoch 0. Images
    are decoded anew for every item: the files are small and the operating system keeps them in memory.

    Args:
        faces: Labelled faces.
        augmentation: What is done to them.
        weights: (N,) weight of each label in (0, 1], or None for 1.
        seed: Seed of every random draw.

    Raises:
        DatasetError: No faces, another number of weights, or a negative seed; on access, an image that does not decode
            or a face that cannot be cropped.
    """

    def __init__(
        self,
        faces: Sequence[Face],
        augmentation: Augmentation,
        weights: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        if not faces:
            raise DatasetError("no faces to train on; name at least one list that has some")
        if weights is not None and len(weights) != len(faces):
            raise DatasetError(f"{len(weights)} label weights for {len(faces)} faces; give one for each")
        if seed < 0:
            raise DatasetError(f"seed {seed}: must not be negative")
        self.faces = tuple(faces)
        self.augmentation = augmentation
        self.weights = np.ones(len(faces), np.float32) if weights is None else np.asarray(weights, np.float32)
        self.seed = seed

    @property
    def landmarks(self) -> np.ndarray:
        """(N, 98, 2) landmarks of the faces in pixels of their images."""
        return np.stack([face.landmarks for face in self.faces])

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, key: Draw | int) -> TrainingSample:
        if isinstance(key, Draw):
            draw = key
        else:
            index = range(len(self.faces))[key]
            draw = Draw(index, epoch=0, position=index)
        face = self.faces[draw.index]
        image = face.read_image()
        generator = np.random.default_rng((self.seed, draw.epoch, draw.position))
        try:
            if draw.views == 1:
                crop, landmarks = self.augmentation(image, face.landmarks, generator)
                motion = np.eye(2, 3, dtype=np.float32)
            else:
                first, second, motion = self.augmentation.pair(image, face.landmarks, generator)
                crop, landmarks = np.stack([first[0], second[0]]), np.stack([first[1], second[1]])
        except ValueError as error:
            raise DatasetError(f"{face.image_path}: {error}; correct or remove its label") from error
        weight = torch.tensor(self.weights[draw.index])
        return TrainingSample(to_network_input(crop), torch.from_numpy(landmarks), weight, torch.from_numpy(motion))


class PoseSampler(Sampler[Draw]):
    """Weighted sampling with replacement, the same for any number of processes and after a resume.

    Systematic sampling: a face with weight w comes floor or ceil of n w / sum(w) times among the n samples of an epoch,
    so no epoch misses or repeats faces by bad luck. The order is shuffled, and process r of W takes the positions r,
    r + W, ...; where W does not divide n, the first samples are repeated at the end with new augmentation.

    Args:
        weights: (N,) sampling weight of each face, not negative.
        samples_per_epoch: n, over all processes.
        seed: Seed of every draw.
        rank: This process, from 0.
        world_size: Number of processes.
        views: Number of views (`Draw`) of the sample at an epoch and a position; None for 1.

    Raises:
        DatasetError: Weights that cannot be sampled from, no samples, a negative seed, or a rank outside the processes.
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
            raise DatasetError("sampling weights must be finite, not negative and not all zero, one for each face")
        if samples_per_epoch < 1:
            raise DatasetError(f"samples_per_epoch = {samples_per_epoch}: must be at least 1")
        if seed < 0:
            raise DatasetError(f"seed {seed}: must not be negative")
        if not 0 <= rank < world_size:
            raise DatasetError(f"rank {rank} of {world_size} processes: must lie in 0 to world_size - 1")
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
            start: Samples of that epoch, over all processes, that a run has seen before it stopped.

        Raises:
            DatasetError: A negative epoch, or a start outside the epoch or between two rounds of the processes.
        """
        if epoch < 0:
            raise DatasetError(f"epoch {epoch}: must not be negative")
        if not 0 <= start <= self._padded_samples or start % self.world_size:
            raise DatasetError(
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


class FaceList(NamedTuple):
    """A list of faces to train on.

    Attributes:
        root: Folder of the dataset, in either layout of WFLW.
        split: Name of the list.
        share: Share of the samples that are drawn from it, in (0, 1); None for what its faces' weights give it.
    """

    root: Path
    split: str
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> "FaceList":
        """Read ROOT:SPLIT or ROOT:SPLIT=SHARE.

        Raises:
            DatasetError: Another form, or a share outside (0, 1).
        """
        place, equals, number = text.partition("=")
        root, colon, split = place.rpartition(":")
        try:
            share = float(number) if equals else None
        except ValueError:
            share = math.nan
        if not (root and colon and split) or (share is not None and not 0 < share < 1):
            raise DatasetError(f"list of faces {text!r}: must be ROOT:SPLIT or ROOT:SPLIT=SHARE, the share in (0, 1)")
        return cls(Path(root), split, share)


def read_training_lists(sources: Sequence[FaceList]) -> tuple[list[Face], np.ndarray, np.ndarray]:
    """Read several lists of faces and the quality of their labels.

    The quality stands in `label_quality.tsv` in the root of a dataset: tab-separated, with a header and the columns
    `image` and `teacher_disagreement_pct_interocular`. Without that file, or for a face that it does not name, the
    weight is 1.

    Args:
        sources: The lists.

    Returns:
        The N faces of all lists in order, their (N,) float32 label weights (`label_weight`), and the (N,) int64 number
        of the list that each comes from.

    Raises:
        DatasetError: No list, or one that cannot be read, or a quality file of another form.
    """
    if not sources:
        raise DatasetError("no list of faces; name at least one dataset folder and split")
    faces: list[Face] = []
    weights: list[float] = []
    numbers: list[int] = []
    for number, source in enumerate(sources):
        listed = read_faces(source.root, source.split)
        disagreement = _read_disagreement(source.root / LABEL_QUALITY_FILE)
        faces += listed
        weights += [label_weight(disagreement.get(face.name, 0.0)) for face in listed]
        numbers += [number] * len(listed)
    return faces, np.array(weights, np.float32), np.array(numbers)


def share_weights(weights: np.ndarray, numbers: np.ndarray, shares: Sequence[float | None]) -> np.ndarray:
    """Sampling weights of which some lists have a fixed share.

    Args:
        weights: (N,) sampling weights, which are kept in proportion within a list and among the lists without a share.
        numbers: (N,) number of the list of each face.
        shares: Share of each list in the sum of the weights, or None.

    Returns:
        (N,) float64, of sum 1.

    Raises:
        DatasetError: Shares that leave nothing to the lists without one.
    """
    fixed = np.array([share or 0.0 for share in shares])
    free = np.array([share is None for share in shares])
    rest = 1 - fixed.sum()
    if rest < -1e-9 or (free.any() and rest <= 0):
        raise DatasetError(
            f"shares of the lists of faces sum to {fixed.sum():g}; they must leave something to the others"
        )
    sums = np.bincount(numbers, weights, len(shares))
    factors = np.where(free, rest / max(sums[free].sum(), np.finfo(float).tiny), fixed / sums)
    shared = weights * factors[numbers]
    return shared / shared.sum()


def label_weight(disagreement: float, trusted: float = 2.0) -> float:
    """Weight of a pseudo label by how much the networks that made it disagree: min(1, trusted / disagreement).

    The disagreement estimates the scale of the label's error, and the likelihood of a Laplace error weighs a distance
    with the inverse of its scale. Labels up to `trusted` count alike: there the network's own error dominates.

    Args:
        disagreement: Percent of the distance of the outer eye corners, not negative.
        trusted: Disagreement below which a label has full weight.
    """
    return min(1.0, trusted / disagreement) if disagreement > 0 else 1.0


def profile_measure(landmarks: np.ndarray) -> np.ndarray:
    """How far faces are turned to the side: |a - b| / (a + b).

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
    """Sampling weights that raise the rare turned faces: 1 + (boost - 1) min(1, m / 0.7)^3, m the `profile_measure`.

    A frontal face has weight 1 and a near profile `boost`.

    Args:
        landmarks: (N, 98, 2) in any unit.
        boost: Weight of a near profile, at least 1; 1 samples all faces alike.

    Returns:
        (N,) float64.

    Raises:
        DatasetError: A boost below 1.
    """
    if not boost >= 1:
        raise DatasetError(f"pose boost {boost}: must be at least 1")
    return 1 + (boost - 1) * np.minimum(1, profile_measure(landmarks) / 0.7) ** 3


def initialise_worker(worker_id: int) -> None:
    """`worker_init_fn` of a `DataLoader`: one thread for OpenCV, as PyTorch gives itself in a worker."""
    cv2.setNumThreads(0)


def _read_disagreement(path: Path) -> dict[str, float]:
    """Disagreement of the labels of each image by name; empty where there is no file."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as text ({error}); get the file again or remove it") from error
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    if missing := {"image", DISAGREEMENT_COLUMN} - set(rows.fieldnames or ()):
        raise DatasetError(f"{path}, line 1: no column {', '.join(sorted(missing))}; get the file again or remove it")
    disagreement = {}
    for row in rows:
        try:
            value = float(row[DISAGREEMENT_COLUMN] or "")
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise DatasetError(
                f"{path}, line {rows.line_num}: {DISAGREEMENT_COLUMN} is {row[DISAGREEMENT_COLUMN]!r}; "
                "correct it to a number of at least 0"
            )
        disagreement[row["image"]] = value
    return disagreement
