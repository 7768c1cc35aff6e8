"""The index of WFLW-V: which frames of which YouTube video make up each clip, and which clips are easy and hard.

    download_ranges.txt                        one clip a line: video id, first frame, last frame; from 0, both included
    easy_video_IDs.txt, hard_video_IDs.txt     one video id a line

The index belongs to the original release (polo5/LDEQ_RwR, datasets/WFLW_V) and is fetched from there.
"""

import hashlib
import http.client
import re
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import InputError, OptionError
from utils.files import write_bytes
from utils.reading import read_lines

RANGES_FILE = "download_ranges.txt"

SPLIT_FILES = {"easy": "easy_video_IDs.txt", "hard": "hard_video_IDs.txt"}

INDEX_URL = (
    "https://raw.githubusercontent.com/polo5/LDEQ_RwR/c9710751d1c20ca51fffd8d2dda6c6807c74f23b/datasets/WFLW_V/{name}"
)

SHA256 = {
    RANGES_FILE: "9b0ee057f64b66851c9c4bca8f109c23e149bcac6796572812638842089105fc",
    SPLIT_FILES["easy"]: "ee26f852466b2c7e0f5edd07c4e2d5f9ddf594ef89b67015c3c4a5c9a6e7580e",
    SPLIT_FILES["hard"]: "d492b8d6335462db8bf755600fa800340dce877c9b38501269d8f4e1d7fc4e1f",
}
"""Checksums of the three published files."""

PARTS = f"an index has {', '.join(SHA256)}"

TIMEOUT = 30  # Seconds without an answer.


@dataclass(frozen=True)
class Clip:
    """The part of a video that WFLW-V uses.

    Attributes:
        video_id: YouTube's id of the video, and the name of the clip.
        first: First frame of the clip in the video, from 0.
        last: Last frame of the clip, included.
    """

    video_id: str
    first: int
    last: int

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class WFLWVIndex:
    """The index of WFLW-V.

    Attributes:
        clips: The clips in the order of download_ranges.txt.
        splits: The ids of the clips of "easy" and "hard".
    """

    clips: tuple[Clip, ...]
    splits: dict[str, frozenset[str]]

    def in_split(self, split: str) -> tuple[Clip, ...]:
        """The clips of "easy", "hard" or "all" in the order of the index."""
        return tuple(clip for clip in self.clips if split == "all" or clip.video_id in self.splits[split])


def check_video_id(text: str, where: str) -> str:
    """Check that a text is a YouTube video id, which is safe in file names and addresses.

    Args:
        text: The text.
        where: File and line, or option, for the message.

    Returns:
        The id.

    Raises:
        InputError: If it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{11}", text):
        raise InputError(
            f"{where}: {text!r} is not a YouTube video id, 11 of the characters A-Z a-z 0-9 _ -; correct it"
        )
    return text


def read_index(folder: Path) -> WFLWVIndex:
    """Read the three files of an index.

    Args:
        folder: The folder that holds them.

    Returns:
        The index.

    Raises:
        InputError: If the folder or a file is missing, a line has another format, a clip is listed twice, or a split
            names a clip that has no range.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such index folder; give one with {', '.join(SHA256)}, or no --index to fetch them"
        )
    clips: dict[str, Clip] = {}
    for where, line in read_lines(folder / RANGES_FILE, PARTS):
        clip = _parse_range(line, where)
        if clip.video_id in clips:
            raise InputError(f"{where}: {clip.video_id} is in the file twice; remove one of its lines")
        clips[clip.video_id] = clip
    if not clips:
        raise InputError(f"{folder / RANGES_FILE}: lists no clip; get the file again")
    splits = {}
    for split, name in SPLIT_FILES.items():
        lines = {check_video_id(line, where): where for where, line in read_lines(folder / name, PARTS)}
        for video_id, where in lines.items():
            if video_id not in clips:
                raise InputError(f"{where}: {video_id} has no line in {RANGES_FILE}; add its frames or remove it")
        splits[split] = frozenset(lines)
    return WFLWVIndex(tuple(clips.values()), splits)


def choose_clips(
    index: WFLWVIndex, split: str, ids: Sequence[str] | None = None, limit: int | None = None
) -> tuple[Clip, ...]:
    """The clips that the options choose, in the order of the index.

    Args:
        index: The index.
        split: "easy", "hard" or "all".
        ids: Only these; None for all.
        limit: The most clips; None for all.

    Raises:
        InputError: If an id is malformed.
        OptionError: If an id is not in the split, or the split is empty.
    """
    clips = index.in_split(split)
    if ids is not None:
        wanted = {check_video_id(video_id, "--ids") for video_id in ids}
        unknown = sorted(wanted - {clip.video_id for clip in clips})
        if unknown:
            raise OptionError(f"--ids: {', '.join(unknown)} not in the index (--split {split}); take ids of its files")
        clips = tuple(clip for clip in clips if clip.video_id in wanted)
    if not clips:
        raise OptionError(f"--split {split}: the index lists no clip of it; choose another split")
    return clips[:limit]


def fetch_index(folder: Path, url: str = INDEX_URL) -> None:
    """Fetch the published index, unless the folder already holds it.

    Args:
        folder: Folder for the three files; made if missing.
        url: Address of a file, with {name} in the place of its name.

    Raises:
        InputError: If a file cannot be fetched, or is not the published one.
    """
    if is_published(folder):
        return
    for name, expected in SHA256.items():
        address = url.replace("{name}", name)
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT) as response:
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise InputError(
                f"{address}: cannot be fetched ({error}); try again later, or get {', '.join(SHA256)} in another way "
                "and give their folder by --index"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise InputError(
                f"{address}: not the published file, its SHA-256 is {found} instead of {expected}; try again later, or "
                "give a folder with the index by --index"
            )
        write_bytes(folder / name, content)


def is_published(folder: Path) -> bool:
    """Whether a folder holds the three files exactly as published."""
    paths = {folder / name: checksum for name, checksum in SHA256.items()}
    return all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum for path, checksum in paths.items()
    )


def _parse_range(line: str, where: str) -> Clip:
    fields = line.split()
    if len(fields) != 3 or not all(re.fullmatch(r"[0-9]+", field) for field in fields[1:]):
        raise InputError(f"{where}: expected a video id and two frame numbers, found {line!r}; correct the line")
    clip = Clip(check_video_id(fields[0], where), int(fields[1]), int(fields[2]))
    if clip.last < clip.first:
        raise InputError(f"{where}: the last frame, {clip.last}, is before the first, {clip.first}; correct them")
    return clip
