"""Landmarks of the faces in a picture, a folder of pictures, a video, or the image of a webcam.

python demo.py datasets/sample/videos/hopper_easy.mp4 --save overlay.mp4
python demo.py portrait.jpg --save overlay.png --landmarks portrait.csv
python demo.py pictures/ --save overlays/
python demo.py 0 --show                  # the first webcam, in a window; q or Esc ends it
python demo.py clip.mp4 --compare --save side_by_side.mp4
python demo.py clip.mp4 --boxes boxes.npy --rwr_variant faithful --crop original --solve_first_frame false \\
    --restart false
    # what test_LDEQ_WFLW_V.py computes for a clip with these boxes

Faces are found by a detector (inference/detector.py) and followed from frame to frame by their own landmarks, each
with an RwR state of its own (inference/faces.py). --boxes FILE takes your boxes instead, tight around the landmarks:
.npy (frames, 4) or .csv with the columns frame, face, x1, y1, x2, y2; --cropped takes pictures that are one face
already, cropped as WFLW's. The pictures of a folder are solved each on its own, with --sequence as a video.

Landmarks go to --landmarks, JSON Lines or CSV (inference/landmark_files.py), by default results/demo/<input>.jsonl.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.wflw import NUM_LANDMARKS
from inference.detector import CenterFaceDetector, DetectionMode
from inference.faces import Face, FaceTracker
from inference.landmark_files import LandmarkWriter, read_boxes
from inference.network import load_network, resolve_device
from inference.options import add_machine_options, add_weights_option
from inference.predictor import LandmarkPredictor
from inference.streams import RestartRule
from inference.tracker import TrackingConfig
from models import LDEQ
from models.rwr import VARIANTS
from utils.command_line import run, true_or_false
from utils.crops import CROP_RULES, CropRule
from utils.drawing import draw_faces
from utils.errors import CheckpointError, InputError
from utils.geometry import box_to_crop
from utils.side_by_side import JitterMeter, side_by_side
from utils.sources import Source, has_display, open_source, read_frames, read_picture, silence_opencv
from utils.writers import PICTURE_SUFFIXES, open_writer, write_picture

NO_RWR, RWR = "every frame afresh", "RwR"
END_KEYS = (ord("q"), 27)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help="a picture, a folder of pictures, a video, or the index of a webcam")
    add_weights_option(parser)
    parser.add_argument(
        "--landmarks", type=Path, metavar="FILE", help=".jsonl or .csv (default: results/demo/<input>.jsonl)"
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write the overlay: .mp4, .webp or .gif for a video, .png or .jpg for a picture, a folder for a folder",
    )
    parser.add_argument("--show", action="store_true", help="show the overlay in a window; q or Esc ends")
    parser.add_argument("--compare", action="store_true", help="every frame afresh beside RwR, with a jitter meter")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--boxes", type=Path, metavar="FILE", help="boxes of the faces, .npy or .csv")
    where.add_argument("--cropped", action="store_true", help="the whole picture is the crop of one face")
    parser.add_argument("--sequence", action="store_true", help="the pictures of a folder are the frames of a video")
    parser.add_argument("--rwr", type=true_or_false, default=True, metavar="true|false")
    parser.add_argument(
        "--rwr_variant", choices=VARIANTS, default="steady", help="RwR as in the original, or one that steadies more"
    )
    parser.add_argument(
        "--crop", choices=CROP_RULES, default="steady", help="how the faces are cut out of the frames of a video"
    )
    parser.add_argument(
        "--solve_first_frame",
        type=true_or_false,
        default=True,
        metavar="true|false",
        help="whether a face's first frame gets a full solve, and not as few evaluations as the others",
    )
    parser.add_argument(
        "--restart",
        type=true_or_false,
        default=True,
        metavar="true|false",
        help="whether a cut or a jump of the box counts as a first frame",
    )
    add_machine_options(parser)
    return parser.parse_args()


def main() -> int:
    """Run the demo; returns the exit status."""
    args = parse_arguments()
    silence_opencv()
    if args.show and not has_display():
        raise InputError("--show: there is no display here; use --save")
    source = open_source(args.input)
    as_video = source.kind in ("video", "webcam") or args.sequence
    if args.sequence and source.kind != "folder":
        raise InputError(f"{args.input}: --sequence goes with a folder of pictures")
    if args.compare and not (as_video and args.rwr):
        raise InputError("--compare goes with a video, and not with --rwr false")
    if args.save:
        check_save_path(args.save, source)
    model = load_network(args.landmark_model_weights, resolve_device(args.device), NUM_LANDMARKS, "sample")
    if as_video and args.rwr and model.config.mode == "explicit":
        raise CheckpointError(
            f"{args.landmark_model_weights}: an explicit network has no fixed point to carry on; use --rwr false"
        )
    landmarks_path = args.landmarks or Path("results") / "demo" / f"{source.name}.jsonl"
    extra = ("image",) if source.kind == "folder" else ()
    with LandmarkWriter(landmarks_path, NUM_LANDMARKS, extra) as writer:
        run_source = run_video if as_video else run_pictures
        status = run_source(source, model, writer, args)
    print(f"Landmarks: {landmarks_path}")
    if args.save:
        print(f"Overlay: {args.save}")
    return status


def check_save_path(path: Path, source: Source) -> None:
    """Make sure that the overlay does not replace the input.

    Raises:
        InputError: If it does.
    """
    inputs = {entry.resolve() for entry in source.paths}
    if path.resolve() in inputs or path.resolve() in {entry.parent for entry in inputs if source.kind == "folder"}:
        raise InputError(f"--save {path} would replace the input; choose another name")


def run_pictures(source: Source, model: LDEQ, writer: LandmarkWriter, args: argparse.Namespace) -> int:
    """Pictures, each on its own; those that do not decode are reported. Returns the exit status."""
    predictor = LandmarkPredictor(model, args.precision)
    boxes_of = make_boxes(args, "picture")
    broken, without, count = [], 0, 0
    for number, path in enumerate(tqdm(source.paths, unit="picture", disable=len(source.paths) == 1)):
        try:
            picture = read_picture(path)
        except InputError as error:
            if source.kind == "picture":
                raise
            broken.append(str(error))
            continue
        boxes = boxes_of(number, picture)
        faces = [Face(face, found) for face, found in zip(boxes, predictor(picture, list(boxes.values())), strict=True)]
        write_faces(writer, number, faces, {"image": path.name})
        count, without = count + len(faces), without + (not faces)
        overlay = draw(picture, faces)
        if args.save:
            write_picture(overlay_path(args.save, path) if source.kind == "folder" else args.save, overlay)
        if args.show and show(source.name, overlay, wait=True):
            break
    print(f"{count} faces in {len(source.paths) - len(broken)} pictures; {without} without a face")
    for reason in broken:
        print(f"not read: {reason}", file=sys.stderr)
    return 1 if broken else 0


def overlay_path(folder: Path, picture: Path) -> Path:
    """Where the overlay of a picture of a folder goes."""
    return folder / (picture.name if picture.suffix.lower() in PICTURE_SUFFIXES else f"{picture.name}.png")


def run_video(source: Source, model: LDEQ, writer: LandmarkWriter, args: argparse.Namespace) -> int:
    """A video, from frame to frame; Ctrl-C ends it and keeps what is done. Returns the exit status."""
    find = make_finder(model, args)
    # On the very crops of RwR, so that nothing else differs.
    rule = CropRule(exact=CROP_RULES[args.crop].exact)
    afresh = FaceTracker(model, TrackingConfig(rwr=None, crop=rule), precision=args.precision)
    meters = {title: JitterMeter() for title in (NO_RWR, RWR)}
    numbers, count, started = set(), 0, time.monotonic()
    with ExitStack() as stack:
        overlays = stack.enter_context(open_writer(args.save, source.rate)) if args.save else None
        frames = stack.enter_context(closing(video_frames(source)))
        # A source that does not open says so before there is a progress bar.
        first = next(frames)
        try:
            for number, frame in enumerate(tqdm(chain([first], frames), total=source.frames, unit="frame")):
                faces = find(number, frame)
                count += 1
                numbers |= {face.number for face in faces}
                image = {"image": source.paths[number].name} if source.kind == "folder" else {}
                write_faces(writer, number, faces, image)
                if not (overlays or args.show or args.compare):
                    continue
                if args.compare:
                    boxes = {face.number: face.landmarks.box for face in faces}
                    overlay = compare(frame, {NO_RWR: afresh.step(frame, boxes), RWR: faces}, meters)
                else:
                    overlay = draw(frame, faces)
                if overlays:
                    overlays.write(overlay)
                if args.show and show(source.name, overlay):
                    break
        except KeyboardInterrupt:
            print("\nended by Ctrl-C", file=sys.stderr)
    seconds = time.monotonic() - started
    print(f"{len(numbers)} faces in {count} frames, {count / seconds:.1f} frames a second")
    if args.compare:
        for title, meter in meters.items():
            print(f"jitter, {title}: {meter.mean:.2f} % of the face")
    return 0


def video_frames(source: Source) -> Iterator[np.ndarray]:
    """The frames of a video, or the pictures of a folder one after another."""
    if source.kind == "folder":
        yield from map(read_picture, source.paths)
    else:
        yield from read_frames(source)


def make_boxes(args: argparse.Namespace, mode: DetectionMode) -> Callable[[int, np.ndarray], dict[int, np.ndarray]]:
    """What gives the boxes of a single picture, by the number of the face: the user, the whole picture, a detector."""
    if args.boxes:
        given = read_boxes(args.boxes)
        return lambda number, picture: given.get(number, {})
    if args.cropped:
        return lambda number, picture: {0: whole_picture_box(picture)}
    detector = CenterFaceDetector(mode)
    return lambda number, picture: dict(enumerate(detector.detect(picture)[:, :4]))


def make_finder(model: LDEQ, args: argparse.Namespace) -> Callable[[int, np.ndarray], list[Face]]:
    """What gives the faces of the next frame of a video, from its number and its picture."""

    tracker = FaceTracker(model, tracking_config(args), precision=args.precision)
    if not (args.boxes or args.cropped):
        tracker.detector = CenterFaceDetector()
        return lambda number, frame: tracker.step(frame)
    boxes_of = make_boxes(args, "video")
    return lambda number, frame: tracker.step(frame, boxes_of(number, frame))


def tracking_config(args: argparse.Namespace) -> TrackingConfig:
    """How the faces of a video are followed."""
    return TrackingConfig(
        rwr=VARIANTS[args.rwr_variant] if args.rwr else None,
        solve_first_frame=args.solve_first_frame,
        restart=RestartRule() if args.restart else None,
        crop=CROP_RULES["exact" if args.cropped else args.crop],
    )


def whole_picture_box(picture: np.ndarray) -> np.ndarray:
    """(4,) the box whose crop is the whole picture."""
    extent = np.array(picture.shape[1::-1])
    margin = box_to_crop((0, 0, 1, 1), size=1, exact=True)[0, 0]
    half = np.max(extent) * margin / 2
    return np.concatenate([extent / 2 - half, extent / 2 + half])


def write_faces(writer: LandmarkWriter, number: int, faces: list[Face], extra: dict[str, str]) -> None:
    """Write the faces of a frame."""
    for face in faces:
        found = face.landmarks
        writer.write(
            number,
            face.number,
            found.box,
            found.landmarks,
            found.uncertainty,
            found.evaluations,
            found.residual,
            **extra,
        )


def draw(picture: np.ndarray, faces: list[Face]) -> np.ndarray:
    """A copy of a picture with the landmarks of its faces."""
    numbers = [face.number for face in faces]
    return draw_faces(picture, [face.landmarks.landmarks for face in faces], numbers=numbers)


def compare(frame: np.ndarray, faces: dict[str, list[Face]], meters: dict[str, JitterMeter]) -> np.ndarray:
    """Methods side by side on one frame."""
    panels = {}
    for title, of_method in faces.items():
        meters[title].add({face.number: face.landmarks.landmarks for face in of_method})
        panels[title] = draw(frame, of_method)
    return side_by_side(panels, meters)


def show(title: str, picture: np.ndarray, wait: bool = False) -> bool:
    """Show a picture in a window; whether the user wants to end."""
    cv2.imshow(title, picture)
    return cv2.waitKey(0 if wait else 1) & 0xFF in END_KEYS


if __name__ == "__main__":
    sys.exit(run(main))
