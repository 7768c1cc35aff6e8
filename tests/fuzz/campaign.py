"""Damaged checkpoints, lists, clips, pictures, boxes, options and run folders, from a seed.

python tests/fuzz/campaign.py --cases 3000 --seed 1

The property: a right result, or one line that names the file or option, as a `UserError` of the library or exit status
2 of a script (1 where the rest was evaluated); no other exception, no hang, every file that was there before intact.
Prints the counts by class, and the seed of every case that fails; `--only CLASS --first SEED --cases 1` does it again.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fixtures")]

import numpy as np
import torch
from damage import Generator

from tests.fuzz.library_cases import arguments, boxes, checkpoint, clip, face_list, picture
from tests.fuzz.script_cases import options, results_folder, run_folder
from tests.fuzz.stage import PropertyError, Stage
from utils.sources import silence_opencv

LONGEST = 60
"""Seconds that a case may take."""

CLASSES: dict[str, tuple[Callable[[Stage, Generator], str], float]] = {
    "checkpoint": (checkpoint, 0.2),
    "face list": (face_list, 0.15),
    "clip": (clip, 0.15),
    "picture": (picture, 0.2),
    "boxes": (boxes, 0.1),
    "options": (options, 0.04),
    "results folder": (results_folder, 0.02),
    "run folder": (run_folder, 0.04),
    "arguments": (arguments, 0.1),
}
"""Each with its share of the cases."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `PropertyError` inside the block after some seconds."""

    def end(*_: object) -> None:
        raise PropertyError(f"hangs: still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_case(stage: Stage, name: str, seed: int) -> tuple[str, str]:
    """One case: its outcome ("result", "refused", "rest evaluated", "traceback", "failure"), and what went wrong."""
    generator = np.random.default_rng((seed, list(CLASSES).index(name)))
    try:
        with time_limit(LONGEST), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return CLASSES[name][0](stage, generator), ""
    except PropertyError as failure:
        return "failure", str(failure)
    except Exception:
        return "traceback", traceback.format_exc()


def main() -> int:
    """Run a campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="of the whole campaign")
    parser.add_argument("--only", choices=CLASSES, help="cases of one class only")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    args = parser.parse_args()
    torch.set_num_threads(1)
    silence_opencv()
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        for name, (_, share) in CLASSES.items():
            if args.only not in (None, name):
                continue
            counts[name] = Counter()
            for number in range(
                args.first, args.first + (args.cases if args.only else max(1, round(share * args.cases)))
            ):
                outcome, message = try_case(stage, name, 1_000_000 * args.seed + number)
                counts[name][outcome] += 1
                if message:
                    print(f"{name}, case {number}: {outcome}: {message}", flush=True)
    for name, outcomes in counts.items():
        print(
            f"{name:15} {outcomes.total():6} cases: " + ", ".join(f"{key} {count}" for key, count in outcomes.items())
        )
    return int(any(outcomes["failure"] + outcomes["traceback"] for outcomes in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
