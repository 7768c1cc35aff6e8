"""WFLW (Wu et al., CVPR 2018) in its two layouts, recognised from the files.

Pre-cropped, as distributed with starhiking/HeatmapInHeatmap, the layout behind the published numbers:

    <split>.txt               one face a line: image name, 98 x y in [0, 1]
    <split>/<image name>      256 x 256

Raw, as published at https://wywu.github.io/projects/LAB/WFLW.html:

    WFLW_images/<event>/<name>.jpg
    WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_<split>.txt
                              one face a line: 98 x y in pixels, detection rectangle, 6 attributes, image name
"""

import filecmp
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from datasets.images import read_image
from utils.crops import check_crop, crop_box
from utils.errors import InputError, OptionError
from utils.geometry import FARTHEST, box_to_crop, check_labelled_face, landmark_box, transform_points
from utils.images import resize_image, to_network_input
from utils.landmark_groups import NUM_LANDMARKS
from utils.metrics import OUTER_EYE_CORNERS
from utils.progress import print_warning
from utils.reading import plain_number, read_lines

PRECROPPED_SIZE = 256
ATTRIBUTES = ("largepose", "expression", "illumination", "makeup", "occlusion", "blur")
"""The attributes in the order of the raw lists."""
SPLITS = ("test", *(f"test_{attribute}" for attribute in ATTRIBUTES))
"""The test split and its six subsets, in the order in which results are reported."""
RAW_BOXES = ("landmarks", "rectangle")
DEFAULT_BOX = "landmarks"

Layout = Literal["precropped", "raw"]


@dataclass(frozen=True, eq=False)
class Face:
    """One labelled face of WFLW.

    Attributes:
        name: Image name in the list.
        image_path: Path of the image.
        landmarks: (98, 2) float64 x, y in pixels of the image that `read_image` returns.
        box: (4,) float64 x1, y1, x2, y2, the box for the crop of a raw face; None if the image is already a crop.
        rectangle: (4,) float64 x1, y1, x2, y2 of the detection rectangle; None in the pre-cropped layout.
        attributes: The face's attributes in the raw list, see `ATTRIBUTES`; empty in the pre-cropped layout.
    """

    name: str
    image_path: Path
    landmarks: np.ndarray
    box: np.ndarray | None = None
    rectangle: np.ndarray | None = None
    attributes: tuple[str, ...] = ()

    def read_image(self) -> np.ndarray:
        """Read the image: (H, W, 3) uint8 RGB, 256 x 256 in the pre-cropped layout.

        Raises:
            InputError: If the image cannot be decoded, or is too small for a crop.
        """
        image = read_image(self.image_path)
        if self.box is not None:
            return image
        check_crop(self.image_path, image)
        return resize_image(image, PRECROPPED_SIZE)


@dataclass(frozen=True, eq=False)
class WFLWTest:
    """The test faces of WFLW, each once, and the seven splits as views of them.

    Attributes:
        layout: Layout on disk.
        faces: The unique faces, those of `test` first.
        subsets: For each of `SPLITS` the (n,) int64 indices of its faces, in the order of its list. Empty if no face of
            a raw list has the attribute.
        raw_box: Kind of box for the crops; None in the pre-cropped layout.
    """

    layout: Layout
    faces: tuple[Face, ...]
    subsets: dict[str, np.ndarray]
    raw_box: str | None


class WFLWCrops(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Network images and normalised landmarks of a sequence of faces.

    Item i is the image, (3, size, size) float32, RGB normalised as for ImageNet, and the landmarks, (98, 2) float64, in
    [0, 1] of that image. Only landmarks of a raw face may lie outside, if its box cuts off a part of the face.

    Args:
        faces: Faces of either layout.
        size: Side of the network image in pixels.

    Raises:
        ValueError: If the size is not positive.
        InputError: On access, if an image cannot be decoded.
    """

    def __init__(self, faces: Sequence[Face], size: int = 256):
        if size <= 0:
            raise ValueError(f"image size must be positive, got {size}")
        self.faces = faces
        self.size = size

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, landmarks = self.crop(index)
        return to_network_input(image), torch.from_numpy(landmarks)

    def crop(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Item `index` before normalisation, for drawing.

        Returns:
            The image, (size, size, 3) uint8 RGB, and the landmarks, (98, 2) float64, in units of its side.
        """
        return crop_face(self.faces[index], self.size)


def crop_face(face: Face, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Cut out a face by the rule of its layout.

    A raw face is cropped from its box with `box_to_crop`. A pre-cropped image is used unchanged, or padded first if a
    landmark lies outside (`pad_to_landmarks`); its landmarks are clipped to [0, 1].

    Args:
        face: Face of either layout.
        size: Side of the crop in pixels.

    Returns:
        The crop, (size, size, 3) uint8 RGB, and the landmarks, (98, 2) float64, in units of its side.

    Raises:
        InputError: If the image cannot be decoded, or the face lies far or completely outside of it, or its box does.
    """
    image = face.read_image()
    if face.box is not None:
        try:
            check_labelled_face(face.landmarks, face.box, image.shape[1], image.shape[0])
            crop, matrix = crop_box(image, face.box, size)
        except ValueError as error:
            raise InputError(f"{face.image_path}: its labelled face: {error}; correct the line of the list") from error
        return crop, transform_points(face.landmarks, matrix)
    image, landmarks = pad_to_landmarks(image, face.landmarks)
    return resize_image(image, size), np.clip(landmarks / PRECROPPED_SIZE, 0, 1)


def pad_to_landmarks(image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pad a pre-cropped image that a landmark leaves by more than half a pixel, and resize it back.

    Every side that a landmark crosses gets black pixels: the distance outside, rounded up, plus 8. The aspect may
    change.

    Args:
        image: (256, 256, 3) uint8.
        landmarks: (98, 2) float64 in pixels of the image.

    Returns:
        Image and landmarks in the frame of the padded image, of the same shapes; the arguments if nothing is padded.
    """
    x1, y1, x2, y2 = landmark_box(landmarks)
    outside = np.array([-x1, -y1, x2 - PRECROPPED_SIZE, y2 - PRECROPPED_SIZE])
    if outside.max() <= 0.5:
        return image, landmarks
    left, top, right, bottom = np.where(outside > 0, np.ceil(outside) + 8, 0).astype(int)
    padded = np.pad(image, ((top, bottom), (left, right), (0, 0)))
    height, width = padded.shape[:2]
    resized = Image.fromarray(padded).resize((PRECROPPED_SIZE, PRECROPPED_SIZE), Image.Resampling.BICUBIC)
    shift, scale = np.array([left, top]), PRECROPPED_SIZE / np.array([width, height])
    return np.array(resized), (landmarks + shift) * scale


def find_layout(root: str | Path) -> Layout:
    """Recognise the layout of a WFLW folder.

    Args:
        root: Folder of the dataset.

    Returns:
        "precropped" or "raw".

    Raises:
        InputError: If the folder is missing, or holds neither layout or both.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such dataset folder; give the folder that holds WFLW")
    precropped = any(path.is_file() for pattern in ("test*.txt", "train*.txt") for path in root.glob(pattern))
    raw = any((root / folder).is_dir() for folder in ("WFLW_annotations", "WFLW_images"))
    if precropped == raw:
        found = "both layouts" if raw else "neither layout"
        raise InputError(
            f"{root}: holds {found} of WFLW; give a folder with test.txt and test/ (pre-cropped) "
            "or one with WFLW_annotations/ and WFLW_images/ (raw)"
        )
    return "precropped" if precropped else "raw"


def read_faces(root: str | Path, split: str, raw_box: str | None = None) -> list[Face]:
    """Read one list of faces of either layout; the images are not read, only checked to exist.

    A face that is in the list more than once counts as often, with a warning on stderr: the same line in the raw
    layout, the same image name in the pre-cropped layout.

    Args:
        root: Folder of the dataset.
        split: Name of the list: `<split>.txt` and its folder in the pre-cropped layout,
            `list_98pt_rect_attr_<split>.txt` in the raw layout.
        raw_box: Box for the crop of a raw face: "landmarks" or None, the tight box around the true landmarks, or
            "rectangle", the detection rectangle. The pre-cropped layout has no boxes: leave it None there.

    Returns:
        The faces in the order of the list.

    Raises:
        InputError: If the folder, the list or images are missing, the list is empty, or a line has another format.
        OptionError: If a box is given for the pre-cropped layout.
    """
    root = Path(root)
    if raw_box not in (None, *RAW_BOXES):
        raise InputError(f"unknown raw_box {raw_box!r}; choose one of {', '.join(RAW_BOXES)}")
    if find_layout(root) == "precropped":
        if raw_box is not None:
            raise OptionError(
                f"raw_box {raw_box}: the faces of {root} are already cropped; leave the option out, or give raw WFLW"
            )
        list_path, image_folder = root / f"{split}.txt", root / split
        lines = list(_read_lines(list_path))
        faces = [_parse_precropped(fields, image_folder, where) for where, fields in lines]
        keys: list[tuple[str, ...]] = [(face.name,) for face in faces]
    else:
        list_path = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / f"list_98pt_rect_attr_{split}.txt"
        image_folder = root / "WFLW_images"
        lines = list(_read_lines(list_path))
        faces = [_parse_raw(fields, image_folder, raw_box or DEFAULT_BOX, where) for where, fields in lines]
        keys = [tuple(fields) for _, fields in lines]
    if not faces:
        raise InputError(f"{list_path}: lists no face; the file is empty, get it again")
    missing = [face.image_path for face in faces if not face.image_path.is_file()]
    if missing:
        raise InputError(
            f"{list_path}: {len(missing)} of its {len(faces)} images are missing, the first is {missing[0]}; "
            f"put the images into {image_folder}"
        )
    _warn_of_repeated(list_path, keys)
    return faces


def _warn_of_repeated(list_path: Path, keys: Sequence[tuple[str, ...]]) -> None:
    """Warn, in one line, of faces whose key is in a list more than once; the last part of a key is the image name."""
    repeated = [(key[-1], count) for key, count in Counter(keys).items() if count > 1]
    if not repeated:
        return
    name, count = repeated[0]
    times = "twice" if count == 2 else f"{count} times"
    others = f", and {len(repeated) - 1} other faces are repeated too" if len(repeated) > 1 else ""
    print_warning(
        f"{list_path}: {name} is in the list {times} and counts {times}{others}; remove the lines if it should not"
    )


def load_wflw_test(root: str | Path, raw_box: str | None = None) -> WFLWTest:
    """Read the test split and its six subsets.

    In the raw layout the attributes of the faces of `test` give the subsets. In the pre-cropped layout each subset has
    its own list and folder. Two faces are the same if their landmarks and images are the same, whatever their file
    names. A face of a subset that is not in `test` is a further face of that subset only.

    Args:
        root: Folder of the dataset in either layout.
        raw_box: As for `read_faces`.

    Returns:
        The unique faces and the subsets.

    Raises:
        UserError: As `read_faces`, for any of the seven splits.
    """
    layout = find_layout(root)
    if layout == "precropped":
        faces, subsets = _merge_splits({split: read_faces(root, split, raw_box) for split in SPLITS})
        return WFLWTest(layout, faces, subsets, raw_box=None)
    faces = tuple(read_faces(root, "test", raw_box))
    subsets = {"test": np.arange(len(faces))}
    for split, attribute in zip(SPLITS[1:], ATTRIBUTES, strict=True):
        subsets[split] = np.flatnonzero([attribute in face.attributes for face in faces])
    return WFLWTest(layout, faces, subsets, raw_box or DEFAULT_BOX)


def _merge_splits(splits: Mapping[str, Sequence[Face]]) -> tuple[tuple[Face, ...], dict[str, np.ndarray]]:
    """The unique faces of several lists in order of appearance, and for every list the indices of its faces."""
    faces: list[Face] = []
    subsets: dict[str, np.ndarray] = {}
    by_landmarks: dict[bytes, list[int]] = {}
    for split, listed in splits.items():
        indices = []
        for face in listed:
            candidates = by_landmarks.setdefault(face.landmarks.tobytes(), [])
            index = next((i for i in candidates if _same_image(faces[i].image_path, face.image_path)), None)
            if index is None:
                index = len(faces)
                faces.append(face)
                candidates.append(index)
            indices.append(index)
        subsets[split] = np.array(indices, dtype=np.int64)
    return tuple(faces), subsets


def _same_image(first: Path, second: Path) -> bool:
    """Whether two files hold the same pixels, however they are encoded."""
    return filecmp.cmp(first, second, shallow=False) or np.array_equal(read_image(first), read_image(second))


def _read_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The lines of a list that are not blank: the place of each, for messages, and its fields."""
    for where, line in read_lines(path, "check the dataset folder and the split"):
        yield where, line.split()


def _parse_precropped(fields: list[str], image_folder: Path, where: str) -> Face:
    name, *numbers = fields
    if len(numbers) != 2 * NUM_LANDMARKS:
        raise InputError(
            f"{where}: expected {2 * NUM_LANDMARKS} numbers after the image name, found {len(numbers)}; "
            "correct the line"
        )
    landmarks = _parse_numbers(numbers, where).reshape(NUM_LANDMARKS, 2)
    if landmarks.min() < -1 or landmarks.max() > 2:
        raise InputError(
            f"{where}: coordinates from {landmarks.min():g} to {landmarks.max():g} are not in units of the image; "
            "divide pixels by its side"
        )
    return Face(name, image_folder / name, _check_eyes(landmarks * PRECROPPED_SIZE, where))


def _parse_raw(fields: list[str], image_folder: Path, raw_box: str, where: str) -> Face:
    *numbers, name = fields
    coordinates = 2 * NUM_LANDMARKS
    expected = coordinates + 4 + len(ATTRIBUTES)
    if len(numbers) != expected:
        raise InputError(
            f"{where}: expected {expected} numbers before the image name ({coordinates} coordinates, 4 of the "
            f"rectangle, {len(ATTRIBUTES)} attributes), found {len(numbers)}; correct the line"
        )
    values = _parse_numbers(numbers, where)
    landmarks = values[:coordinates].reshape(NUM_LANDMARKS, 2)
    if (landmarks < 0).any(axis=1).all():
        raise InputError(f"{where}: every landmark lies outside the picture, left of it or above; correct the line")
    rectangle, flags = values[coordinates : coordinates + 4], values[coordinates + 4 :]
    if not np.isin(flags, (0, 1)).all():
        raise InputError(f"{where}: the attributes are {flags.tolist()}; each must be 0 or 1")
    box = landmark_box(landmarks) if raw_box == "landmarks" else rectangle
    try:
        box_to_crop(box)
    except ValueError as error:
        raise InputError(f"{where}: {raw_box}: {error}; correct or remove the line") from error
    attributes = tuple(attribute for attribute, flag in zip(ATTRIBUTES, flags, strict=True) if flag)
    return Face(name, image_folder / name, _check_eyes(landmarks, where), box, rectangle, attributes)


def _parse_numbers(fields: list[str], where: str) -> np.ndarray:
    values = np.empty(len(fields))
    for index, field in enumerate(fields):
        try:
            values[index] = float(plain_number(field))
        except ValueError:
            raise InputError(f"{where}: {field!r} is not a number; correct the line") from None
    if not np.isfinite(values).all():
        raise InputError(f"{where}: holds {values[~np.isfinite(values)][0]}; every number must be finite")
    if np.abs(values).max() > FARTHEST:
        raise InputError(f"{where}: holds {np.abs(values).max():g}, which is outside every picture; correct the line")
    return values


def _check_eyes(landmarks: np.ndarray, where: str) -> np.ndarray:
    """The landmarks, if an error can be normalised by their outer eye corners."""
    first, second = OUTER_EYE_CORNERS
    if not np.linalg.norm(landmarks[first] - landmarks[second]) >= 1:
        raise InputError(
            f"{where}: the outer eye corners, landmarks {first} and {second}, are under a pixel apart; correct the line"
        )
    return landmarks
