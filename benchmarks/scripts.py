"""Speed and memory of the scripts as users run them, compared with an earlier checkout of this repository.

git worktree add ../before COMMIT
python benchmarks/scripts.py --against ../before
python benchmarks/scripts.py --against ../before --scripts demo --demo_faces 5 --output_folder results
python benchmarks/scripts.py --scripts faces --dataset_path WFLW -- --engine torch    # options of this checkout only

    faces     test_LDEQ_WFLW.py on pre-cropped WFLW
    video     test_LDEQ_WFLW_V.py with its default RwR
    demo      demo.py on a clip of 640 x 480, with detection and landmark file
    picture   demo.py on one picture: the whole time from the command to the landmarks on the disk

Both checkouts run on the same input, in turn. Each script also runs on a small part of the input. The time of an item
(a face or a frame) is the difference of the two times divided by the difference of the numbers of items; the rest is
the start-up. Processor time is that of all processes; it is more reliable on a busy machine. Peak memory is that of the
largest process. Without --against only this checkout is measured.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

if __name__ == "__main__":
    # A script's own folder comes first on the path; `solvers` there would be the benchmark of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.clips import SIZE, few_clips, few_faces, make_clip
from benchmarks.measuring import add_measuring_options, median_ratio, report
from evaluation.settings import SAMPLE
from utils.command_line import given_path, positive_integer, run, script_parser
from utils.errors import InputError, OptionError

ROOT = Path(__file__).resolve().parents[1]
HERE, BEFORE = "this", "before"
FRAMES, FEW_FRAMES = 400, 40
"""Frames of the demo's clip and of its small part."""

ENVIRONMENT = dict(os.environ)
"""That of the user: this script's own changes to it must not reach the scripts that it measures."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--against", type=given_path, metavar="CHECKOUT", help="an earlier checkout of this repository")
    parser.add_argument(
        "--scripts", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="scripts to measure (default: all)"
    )
    parser.add_argument(
        "--landmark_model_weights", type=given_path, help="for both checkouts (default: the shipped weights of each)"
    )
    parser.add_argument(
        "--dataset_path", type=given_path, default=SAMPLE, help="pre-cropped WFLW (default: the sample)"
    )
    parser.add_argument("--WFLW_V_dataset_path", type=given_path, default=SAMPLE, help="WFLW-V (default: the sample)")
    parser.add_argument("--video", type=given_path, help="clip of the demo (default: hopper_easy of the sample)")
    parser.add_argument("--demo_faces", type=positive_integer, default=1, help="copies of the clip in a frame")
    parser.add_argument("--threads", type=positive_integer, help="cores of each run (default: PyTorch's choice)")
    add_measuring_options(parser, repeats=3, table="scripts.csv")
    parser.add_argument("options", nargs="*", help="after --: options of this checkout's scripts only")
    args = parser.parse_args()
    if args.against and not (args.against / "demo.py").is_file():
        raise OptionError(f"--against {args.against}: no checkout of this repository; give the folder with its demo.py")
    return args


@dataclass(frozen=True)
class Run:
    """One run of a script: seconds, processor seconds, peak bytes, faces or frames."""

    seconds: float
    cpu_seconds: float
    peak: int
    items: int


@dataclass(frozen=True)
class Workload:
    """A script on its whole input and on a small part of it; `count` reads the items from the output and the folder."""

    whole: list[str]
    part: list[str] | None
    count: Callable[[str, Path], int]


def rows_of(name: str, column: str | None) -> Callable[[str, Path], int]:
    """A function that counts the rows of a table that a script writes, or sums one of its columns."""

    def count(output: str, folder: Path) -> int:
        with (folder / name).open(newline="", encoding="utf-8") as file:
            return sum(int(row[column]) if column else 1 for row in csv.DictReader(file))

    return count


def frames_of_demo(output: str, folder: Path) -> int:
    """The number of frames in the demo's output."""
    return int(re.findall(r"faces? in (\d+) frame", output)[0])


def faces(args: argparse.Namespace, folder: Path) -> Workload:
    """The WFLW benchmark."""
    script = ["test_LDEQ_WFLW.py", "--output_folder", "{out}", "--device", "cpu", "--dataset_path"]
    part = few_faces(args.dataset_path, folder)
    return Workload([*script, str(args.dataset_path)], [*script, str(part)], rows_of("per_face.csv", None))


def video(args: argparse.Namespace, folder: Path) -> Workload:
    """The video evaluation."""
    script = ["test_LDEQ_WFLW_V.py", "--output_folder", "{out}", "--device", "cpu", "--WFLW_V_dataset_path"]
    part = few_clips(args.WFLW_V_dataset_path, folder)
    return Workload([*script, str(args.WFLW_V_dataset_path)], [*script, str(part)], rows_of("per_video.csv", "frames"))


def demo(args: argparse.Namespace, folder: Path) -> Workload:
    """The demo on a video."""
    source = args.video or SAMPLE / "videos" / "hopper_easy.mp4"
    whole = make_clip(source, folder / "whole.mp4", SIZE, args.demo_faces, FRAMES)
    part = make_clip(source, folder / "part.mp4", SIZE, args.demo_faces, FEW_FRAMES)
    script = ["demo.py", "--device", "cpu", "--landmarks", "{out}/landmarks.csv"]
    return Workload([*script, str(whole)], [*script, str(part)], frames_of_demo)


def picture(args: argparse.Namespace, folder: Path) -> Workload:
    """The demo on a picture."""
    script = ["demo.py", str(SAMPLE / "test" / "hopper.jpg"), "--device", "cpu", "--landmarks", "{out}/landmarks.csv"]
    return Workload(script, None, lambda output, folder: 1)


WORKLOADS = {"faces": faces, "video": video, "demo": demo, "picture": picture}


def main() -> None:
    """Measure, print the table, and write it where asked."""
    args = parse_arguments()
    import pandas as pd

    checkouts = {HERE: ROOT} | ({BEFORE: args.against.resolve()} if args.against else {})
    rows = []
    for name in args.scripts:
        with tempfile.TemporaryDirectory() as folder:
            workload = WORKLOADS[name](args, Path(folder))
            measured = [
                {checkout: measure(workload, root, checkout, args) for checkout, root in checkouts.items()}
                for _ in range(args.repeats)
            ]
        for checkout in checkouts:
            row = {key: median(one[checkout][key] for one in measured) for key in measured[0][checkout]}
            ratios = {}
            if args.against:
                for key in ("ms an item", "processor ms an item", "start-up, s", "peak memory, MiB"):
                    here, before = ([one[which][key] for one in measured] for which in (checkout, BEFORE))
                    ratios[f"{key.split(',')[0]} / before"] = median_ratio(here, before) if all(before) else None
            rows.append({"script": name, "checkout": checkout, **row, **ratios})
    report(pd.DataFrame(rows), None, args.output_folder and args.output_folder / "scripts.csv")


def measure(workload: Workload, root: Path, checkout: str, args: argparse.Namespace) -> dict[str, float]:
    """The figures of one run on the whole input and one on the part of it."""
    own = args.options if checkout == HERE else []
    whole = start(workload, workload.whole + own, root, args)
    part = start(workload, workload.part + own, root, args) if workload.part else Run(0, 0, 0, 0)
    items = whole.items - part.items
    if items < 1:
        raise InputError(f"{workload.whole[-1]}: too small to measure; give more than a clip or a face of each subset")
    seconds, cpu_seconds = (whole.seconds - part.seconds) / items, (whole.cpu_seconds - part.cpu_seconds) / items
    return {
        "items": whole.items,
        "ms an item": 1e3 * seconds,
        "items a second": 1 / seconds,
        "processor ms an item": 1e3 * cpu_seconds,
        "start-up, s": whole.seconds - seconds * whole.items,
        "whole time, s": whole.seconds,
        "peak memory, MiB": whole.peak / 2**20,
    }


def start(workload: Workload, words: list[str], root: Path, args: argparse.Namespace) -> Run:
    """Run a script in a checkout."""
    weights = ["--landmark_model_weights", str(args.landmark_model_weights)] if args.landmark_model_weights else []
    environment = ENVIRONMENT | ({"OMP_NUM_THREADS": str(args.threads)} if args.threads else {})
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+", encoding="utf-8") as log:
        command = [sys.executable, *(word.replace("{out}", folder) for word in words), *weights]
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        output = log.read()
        if process.returncode:
            raise InputError(f"{root / words[0]} ended with status {process.returncode}: {output.strip()[-300:]}")
        peak = usage.ru_maxrss if sys.platform == "darwin" else 1024 * usage.ru_maxrss
        return Run(seconds, usage.ru_utime + usage.ru_stime, peak, workload.count(output, Path(folder)))


if __name__ == "__main__":
    sys.exit(run(main))
