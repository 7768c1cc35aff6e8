import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# Read when torch is loaded, here and in the scripts that tests start: these networks are too small for threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from four_clips import make_clips
from synthetic_faces import make_face, to_text, write_image

from datasets.wflw import ATTRIBUTES, SPLITS

# A failed assert in a helper says what was compared, as one in a test does.
pytest.register_assert_rewrite(*{path.stem for path in Path(__file__).parent.glob("fixtures/*.py")} - set(sys.modules))

# Flags of the six synthetic faces in the order of ATTRIBUTES; every subset has a face and two faces share subsets.
FACE_FLAGS = np.array(
    [
        [0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 1],
        [0, 0, 1, 1, 0, 1],
        [0, 0, 0, 0, 1, 0],
    ]
)


@pytest.fixture
def write_precropped_split() -> Callable[[Path, str, Sequence[tuple[str, np.ndarray, np.ndarray]]], None]:
    """Writes one split of the pre-cropped layout from (image name, RGB image, landmarks in [0, 1])."""

    def write(root: Path, split: str, faces: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> None:
        for name, image, _ in faces:
            write_image(root / split / name, image)
        lines = [f"{name} {to_text(landmarks)}\n" for name, _, landmarks in faces]
        (root / f"{split}.txt").write_text("".join(lines))

    return write


@pytest.fixture
def precropped_wflw(tmp_path: Path, write_precropped_split: Callable[..., None]) -> Path:
    """Six faces in the pre-cropped layout, in all seven splits and `train`, under another file name in each."""
    root = tmp_path / "precropped"
    for split, members in {**_members(), "train": range(6)}.items():
        faces = [(f"{split}_{position}.png", *make_face(seed)) for position, seed in enumerate(members)]
        write_precropped_split(root, split, faces)
    return root


@pytest.fixture
def raw_wflw(tmp_path: Path) -> Path:
    """The same six faces in the raw layout, as `test` and `train`, in images of 320 x 300 pixels at (40, 30)."""
    root = tmp_path / "raw"
    lines = []
    for seed, flags in enumerate(FACE_FLAGS):
        image, landmarks = make_face(seed)
        canvas = np.full((300, 320, 3), 128, np.uint8)
        canvas[30:286, 40:296] = image
        name = f"{seed % 2}--Event/face_{seed}.png"
        write_image(root / "WFLW_images" / name, canvas)
        numbers = np.concatenate([(256 * landmarks + (40, 30)).ravel(), (60, 50, 270, 260), flags])
        lines.append(f"{to_text(numbers)} {name}\n")
    folder = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    folder.mkdir(parents=True)
    for split in ("test", "train"):
        (folder / f"list_98pt_rect_attr_{split}.txt").write_text("".join(lines))
    return root


@pytest.fixture
def wflw_members() -> dict[str, list[int]]:
    """For each of the seven splits the seeds of its synthetic faces."""
    return _members()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips, two easy and two hard; not to be changed."""
    return make_clips(tmp_path_factory.mktemp("clips"))


def _members() -> dict[str, list[int]]:
    subsets = {split: np.flatnonzero(FACE_FLAGS[:, column]) for column, split in enumerate(SPLITS[1:])}
    assert len(subsets) == len(ATTRIBUTES)
    return {"test": list(range(len(FACE_FLAGS))), **{split: seeds.tolist() for split, seeds in subsets.items()}}
