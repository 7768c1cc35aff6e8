"""The 98 landmarks of WFLW: the parts of the face, the lines between them, and which are mirror partners.

Left and right are the person's own, as in COCO and MediaPipe: in a frontal picture the left eye is on the right.
docs/landmarks.png shows the numbers.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

NUM_LANDMARKS = 98


@dataclass(frozen=True)
class LandmarkGroup:
    """A named group of the landmarks.

    Attributes:
        part: the part of the face, which decides its colour: "face", "brows", "eyes", "nose" or "lips".
        lines: the lines through its points; a closed line ends with its first point, a line of one point is a pupil.
    """

    part: str
    lines: tuple[tuple[int, ...], ...]

    @property
    def points(self) -> tuple[int, ...]:
        """The numbers of its landmarks, in ascending order."""
        return tuple(sorted({point for line in self.lines for point in line}))

    @property
    def connections(self) -> tuple[tuple[int, int], ...]:
        """The pairs of landmarks that a line joins."""
        return tuple(pair for line in self.lines for pair in pairwise(line))


def _open(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


def _closed(first: int, last: int) -> tuple[int, ...]:
    return (*range(first, last + 1), first)


LANDMARK_GROUPS: dict[str, LandmarkGroup] = {
    "face_contour": LandmarkGroup("face", (_open(0, 32),)),
    "right_brow": LandmarkGroup("brows", (_closed(33, 41),)),
    "left_brow": LandmarkGroup("brows", (_closed(42, 50),)),
    "nose_bridge": LandmarkGroup("nose", (_open(51, 54),)),
    "nose_base": LandmarkGroup("nose", (_open(55, 59),)),
    "right_eye": LandmarkGroup("eyes", (_closed(60, 67),)),
    "left_eye": LandmarkGroup("eyes", (_closed(68, 75),)),
    "outer_lips": LandmarkGroup("lips", (_closed(76, 87),)),
    "inner_lips": LandmarkGroup("lips", (_closed(88, 95),)),
    "right_pupil": LandmarkGroup("eyes", ((96,),)),
    "left_pupil": LandmarkGroup("eyes", ((97,),)),
}
"""Every landmark is in exactly one of these."""

PARTS: tuple[str, ...] = ("face", "brows", "eyes", "nose", "lips")


def _joined(part: str, *names: str) -> LandmarkGroup:
    return LandmarkGroup(part, tuple(line for name in names for line in LANDMARK_GROUPS[name].lines))


JOINED_GROUPS: dict[str, LandmarkGroup] = {
    "brows": _joined("brows", "right_brow", "left_brow"),
    "nose": _joined("nose", "nose_bridge", "nose_base"),
    "eyes": _joined("eyes", "right_eye", "left_eye"),
    "lips": _joined("lips", "outer_lips", "inner_lips"),
    "pupils": _joined("eyes", "right_pupil", "left_pupil"),
}
"""Several of `LANDMARK_GROUPS` under one name."""


def landmark_group(name: str) -> LandmarkGroup:
    """A group of `LANDMARK_GROUPS` or `JOINED_GROUPS`.

    Raises:
        KeyError: If there is no group of this name; the message lists the names.
    """
    groups = LANDMARK_GROUPS | JOINED_GROUPS
    if not isinstance(name, str) or name not in groups:  # an array, for example, cannot be looked up
        raise KeyError(f"no group of landmarks is called {name!r}; the groups are {', '.join(groups)}")
    return groups[name]


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
    permutation = np.arange(NUM_LANDMARKS)
    for left, right in _MIRRORED_PAIRS:
        permutation[[left, right]] = right, left
    permutation.setflags(write=False)
    return permutation


FLIP_PERMUTATION: np.ndarray = _flip_permutation()
"""(98,) index of the mirror partner of each WFLW landmark: mirrored landmarks are ``landmarks[FLIP_PERMUTATION]``."""
