"""Training faces: augmented samples that depend only on (seed, epoch, position), and sampling by head pose.

Any number of workers or processes, and a run that was resumed in the middle of an epoch, see the same samples.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.wflw import Face, read_faces
from training.augmentation import Augmentation
from training.sampling import Draw
from utils.errors import InputError
from utils.images import to_network_input
from utils.reading import read_table

LABEL_QUALITY_FILE = "label_quality.tsv"

DISAGREEMENT_COLUMN = "teacher_disagreement_pct_interocular"

TRUSTED_DISAGREEMENT = 2.0
"""Up to this disagreement of the labelling networks, in percent of the eye distance, a label has its full weight."""


class TrainingSample(NamedTuple):
    """One augmented face; PyTorch's default collation makes a batch of the same type.

    Attributes:
        image: (3, S, S) float32 RGB, normalised as for ImageNet; (2, 3, S, S) with two views.
        landmarks: (98, 2) float32 x, y over the crop side; (2, 98, 2) with two views. Landmarks outside the crop are
            outside [0, 1].
        weight: () float32 weight of the label in (0, 1].
        motion: (2, 3) float32 affine map from places in the first view to places in the second, in units of the crop
            side; the identity with one view.
    """

    image: torch.Tensor
    landmarks: torch.Tensor
    weight: torch.Tensor
    motion: torch.Tensor


class TrainingFaces(Dataset[TrainingSample]):
    """Augmented faces of one or several lists.

    An item is chosen by a `Draw` (from `PoseSampler`) or by an index, which means that face in epoch 0. Images are
    decoded again for every item: the files are small and the operating system keeps them in memory.

    Args:
        faces: Labelled faces.
        augmentation: Their augmentation.
        weights: (N,) weight of each label in (0, 1], or None for 1.
        seed: Seed of every random draw.

    Raises:
        InputError: If there are no faces, another number of weights, or the seed is negative; on access, if an image
            cannot be decoded or a face cannot be cropped.
    """

    def __init__(
        self,
        faces: Sequence[Face],
        augmentation: Augmentation,
        weights: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        if not faces:
            raise InputError("no faces to train on; name at least one list with faces")
        if weights is not None and len(weights) != len(faces):
            raise InputError(f"{len(weights)} label weights for {len(faces)} faces; give one for each")
        if seed < 0:
            raise InputError(f"seed {seed}: must not be negative")
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
            raise InputError(f"{face.image_path}: {error}; correct or remove its label") from error
        weight = torch.tensor(self.weights[draw.index])
        return TrainingSample(to_network_input(crop), torch.from_numpy(landmarks), weight, torch.from_numpy(motion))


class FaceList(NamedTuple):
    """A list of faces to train on.

    Attributes:
        root: Folder of the dataset, in either layout of WFLW.
        split: Name of the list.
        share: Share of the samples that are drawn from it, in (0, 1); None for the share of its faces' weights.
    """

    root: Path
    split: str
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> "FaceList":
        """Read ROOT:SPLIT or ROOT:SPLIT=SHARE.

        Raises:
            InputError: Another form, or a share outside (0, 1).
        """
        place, equals, number = text.partition("=")
        root, colon, split = place.rpartition(":")
        try:
            share = float(number) if equals else None
        except ValueError:
            share = math.nan
        if not (root and colon and split) or (share is not None and not 0 < share < 1):
            raise InputError(f"list of faces {text!r}: must be ROOT:SPLIT or ROOT:SPLIT=SHARE, the share in (0, 1)")
        return cls(Path(root), split, share)


def read_training_lists(sources: Sequence[FaceList]) -> tuple[list[Face], np.ndarray, np.ndarray]:
    """Read several lists of faces and the quality of their labels.

    The quality is read from `label_quality.tsv` in the root of a dataset: tab-separated, with a header and the columns
    `image` and `teacher_disagreement_pct_interocular`. Without that file, or for a face that it does not list, the
    weight is 1.

    Args:
        sources: The lists.

    Returns:
        The N faces of all lists in order, their (N,) float32 label weights (`label_weight`), and the (N,) int64 number
        of the list of each.

    Raises:
        InputError: If there is no list, a list cannot be read, or a quality file has another format.
    """
    if not sources:
        raise InputError("no list of faces; name at least one dataset folder and split")
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


def label_weight(disagreement: float, trusted: float = TRUSTED_DISAGREEMENT) -> float:
    """Weight of a pseudo-label by the disagreement of the networks that made it: min(1, trusted / disagreement).

    The disagreement estimates the scale of the label's error, and the likelihood of a Laplace error weights a distance
    by the inverse of its scale. Labels up to `trusted` have equal weights: there the network's own error dominates.

    Args:
        disagreement: In percent of the distance of the outer eye corners, not negative.
        trusted: Disagreement up to which a label has full weight.
    """
    return min(1.0, trusted / disagreement) if disagreement > 0 else 1.0


def _read_disagreement(path: Path) -> dict[str, float]:
    """Disagreement of the labels of each image by name; empty if there is no file."""
    if not path.exists():
        return {}
    disagreement = {}
    for where, row in read_table(path, ("image", DISAGREEMENT_COLUMN), delimiter="\t"):
        try:
            value = float(row[DISAGREEMENT_COLUMN])
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise InputError(
                f"{where}: {DISAGREEMENT_COLUMN} is {row[DISAGREEMENT_COLUMN]!r}; correct it to a number of at least 0"
            )
        disagreement[row["image"]] = value
    return disagreement
