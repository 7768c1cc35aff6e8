"""The 98 landmarks of WFLW: which are mirror partners."""

import numpy as np

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
    permutation = np.arange(98)
    for left, right in _MIRRORED_PAIRS:
        permutation[[left, right]] = right, left
    permutation.setflags(write=False)
    return permutation


FLIP_PERMUTATION: np.ndarray = _flip_permutation()
"""(98,) index of the mirror partner of each WFLW landmark: mirrored landmarks are ``landmarks[FLIP_PERMUTATION]``."""
