"""Landmarks of the faces in pictures, folders of pictures, videos, or a webcam's stream.

python demo.py datasets/sample/videos/hopper_easy.mp4 --save overlay.mp4
python demo.py portrait.jpg --save overlay.png --landmarks portrait.csv
python demo.py *.jpg --save overlays/    # the same for pictures/, a folder
python demo.py 0 --show                  # the first webcam, in a window; q or Esc ends it
python demo.py clip.mp4 --compare --save side_by_side.mp4
python demo.py clip.mp4 --boxes boxes.npy --rwr_variant faithful --crop original --solve_first_frame false \\
    --restart false
    # the same landmarks as test_LDEQ_WFLW_V.py for a clip with these boxes

A detector finds the faces (inference/detector.py). In a video each face is followed by its own landmarks and has its
own RwR state (inference/face_tracker.py). --boxes FILE gives the boxes instead, tight around the landmarks: .npy
(frames, 4) or .csv with the columns frame, face, x1, y1, x2, y2. --cropped means that every picture is the crop of one
face, as in WFLW. Every picture is solved on its own; --sequence treats the pictures of a folder as a video.

The landmarks are written as JSON Lines or CSV (inference/landmark_files.py) to --landmarks, by default to
results/demo/<path of the input>.jsonl. Several pictures share one file.
"""

import argparse
import sys

from inference.options import CROPS, RWR_VARIANTS, add_engine_options, add_machine_options, add_weights_option
from utils.command_line import given_path, given_text, number_in, run, script_parser, true_or_false


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "inputs",
        nargs="+",
        type=given_text,
        metavar="input",
        help="a picture, a folder of pictures, a video, or the index of a webcam",
    )
    parser.add_argument("--sequence", action="store_true", help="the pictures of a folder are the frames of a video")
    results = parser.add_argument_group("results")
    results.add_argument(
        "--landmarks",
        type=given_path,
        metavar="FILE",
        help=".jsonl or .csv (default: results/demo/<path of the input>.jsonl)",
    )
    results.add_argument(
        "--save",
        type=given_path,
        metavar="FILE",
        help="write the overlay: .mp4, .webp or .gif for a video, .png or .jpg for a picture, a folder for several "
        "(default: none)",
    )
    results.add_argument("--show", action="store_true", help="show the overlay in a window; q or Esc ends")
    results.add_argument(
        "--compare",
        action="store_true",
        help="show every frame on its own, RwR of the paper and RwR with our pull side by side, with their jitter",
    )
    faces = parser.add_argument_group("boxes of the faces").add_mutually_exclusive_group()
    faces.add_argument("--boxes", type=given_path, metavar="FILE", help="boxes of the faces, .npy or .csv")
    faces.add_argument("--cropped", action="store_true", help="the whole picture is the crop of one face")
    detection = parser.add_argument_group("detection")
    detection.add_argument(
        "--detection_threshold",
        type=number_in(0.01, 0.99),
        default=0.5,
        metavar="SCORE",
        help="lowest score of a face; a lower one finds more faces and more false ones (default: 0.5)",
    )
    detection.add_argument(
        "--min_face",
        type=number_in(1, 100_000),
        metavar="PIXELS",
        help="longer side of the smallest face to look for (default: depends on the picture)",
    )
    video = parser.add_argument_group("video")
    video.add_argument(
        "--rwr",
        type=true_or_false,
        default=True,
        metavar="true|false",
        help="recurrence without recurrence (default: true)",
    )
    video.add_argument(
        "--rwr_variant",
        choices=RWR_VARIANTS,
        default="steady",
        help="RwR of the paper (faithful), or ours (default: steady)",
    )
    video.add_argument(
        "--crop", choices=CROPS, default="steady", help="how the faces are cut out of the frames (default: steady)"
    )
    video.add_argument(
        "--solve_first_frame",
        type=true_or_false,
        default=True,
        metavar="true|false",
        help="give a face's first frame a full solve instead of the few evaluations of RwR (default: true)",
    )
    video.add_argument(
        "--restart",
        type=true_or_false,
        default=True,
        metavar="true|false",
        help="treat a cut or a jump of the box as a first frame (default: true)",
    )
    network = parser.add_argument_group("network")
    add_weights_option(network)
    add_machine_options(network)
    add_engine_options(network)
    return parser.parse_args()


def main() -> int:
    """Run the demo; returns the exit status."""
    args = parse_arguments()
    # Imported after the options are read, because torch is slow to load.
    from inference.jobs import DemoSettings, plan_jobs
    from utils.errors import CheckpointError, InputError
    from utils.sources import has_display, silence_opencv

    settings = DemoSettings(**vars(args))
    silence_opencv()
    if settings.show and not has_display():
        raise InputError("--show: there is no display; use --save")
    jobs = plan_jobs(settings)

    from inference.engines import open_engine
    from inference.network import load_network, resolve_device, use_threads
    from inference.pictures import run_pictures
    from inference.video import run_video
    from utils.landmark_groups import NUM_LANDMARKS

    use_threads(settings.threads)
    device = resolve_device(settings.device)
    model = load_network(settings.landmark_model_weights, device, NUM_LANDMARKS, "sample")
    if settings.rwr and model.config.mode == "explicit" and any(job.as_video for job in jobs):
        raise CheckpointError(
            f"{settings.landmark_model_weights}: RwR needs an implicit network, this one is explicit; use --rwr false"
        )
    engine = open_engine(model, settings.engine, settings.precision)
    status = 0
    for job in jobs:
        status = max(status, (run_video if job.as_video else run_pictures)(job, model, engine, settings))
        print(f"Landmarks: {job.landmarks}")
        if job.overlays and len(job.overlays) == 1:
            print(f"Overlay: {job.overlays[0]}")
        elif job.overlays:
            print(f"Overlays: {settings.save}")
    return status


if __name__ == "__main__":
    sys.exit(run(main))
