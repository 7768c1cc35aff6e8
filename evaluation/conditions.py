"""The data of a run in words: the benchmark, a part of it, or the shipped sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets.wflw import SPLITS
from datasets.wflw_v import published_results
from evaluation.settings import SAMPLE

FACES_OF_WFLW = dict(zip(SPLITS, (2500, 326, 314, 698, 206, 736, 773), strict=True))
"""Faces of the test split of WFLW and of its six subsets (Wu et al., CVPR 2018)."""

CLIPS_OF_WFLW_V = {"easy": 500, "hard": 500}
"""Clips of WFLW-V (Micaelli et al., CVPR 2023)."""

SAMPLE_PORTRAITS = {"faces": 7, "clips": 3}
"""Number of portraits behind the faces and the clips of the sample."""


@dataclass(frozen=True)
class Conditions:
    """The data of a run.

    Attributes:
        text: One line for the user.
        benchmark: Whether it is all of the published data.
    """

    text: str
    benchmark: bool


def describe_faces(dataset: Path, counts: Mapping[str, int], failed: int = 0) -> Conditions:
    """Describe the data of a run of the WFLW benchmark.

    Args:
        dataset: Folder of the faces.
        counts: Number of faces of every split.
        failed: Number of faces without landmarks.
    """
    faces = counts["test"]
    if dataset.resolve() == SAMPLE:
        portraits = SAMPLE_PORTRAITS["faces"]
        text = f"sample ({faces} crops of {portraits} portraits, machine-made labels): a smoke test, not WFLW"
        return Conditions(text, False)
    if faces != FACES_OF_WFLW["test"]:
        return Conditions(f"{faces} of {FACES_OF_WFLW['test']} test faces: not the benchmark", False)
    others = [split for split, count in FACES_OF_WFLW.items() if counts[split] != count]
    if others:
        split = others[0]
        text = f"{faces} test faces, but {counts[split]} of {FACES_OF_WFLW[split]} in {split}: not the benchmark"
        return Conditions(text, False)
    if failed:
        return Conditions(f"{faces} test faces, {failed} of them without landmarks: not the benchmark", False)
    return Conditions(f"WFLW: all {faces} test faces", True)


def describe_clips(dataset: Path, split: str, evaluated: Mapping[str, str]) -> Conditions:
    """Describe the data of a run of the video evaluation.

    Args:
        dataset: Folder of the clips.
        split: "easy", "hard" or "all".
        evaluated: "easy" or "hard" for every evaluated clip, by its id.
    """
    clips = len(evaluated)
    if dataset.resolve() == SAMPLE:
        portraits = SAMPLE_PORTRAITS["clips"]
        text = f"sample ({clips} clips made of {portraits} portraits, machine-made labels): a smoke test, not WFLW-V"
        return Conditions(text, False)
    wanted = {name: count for name, count in CLIPS_OF_WFLW_V.items() if split in (name, "all")}
    ids = {name: {video_id for video_id, of_clip in evaluated.items() if of_clip == name} for name in wanted}
    whole = all(len(ids[name]) == count for name, count in wanted.items())
    if whole and ("easy" not in wanted or ids["easy"] == published_results().keys()):
        return Conditions(f"WFLW-V: all {clips} clips of the split {split!r}", True)
    of = "" if split == "all" else f"{split} "
    return Conditions(f"{clips} of {sum(wanted.values())} {of}clips of WFLW-V: not the benchmark", False)
