"""The status of a clip, and the table of all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from utils.errors import InputError, OutputError
from utils.files import write_csv
from utils.reading import read_table


class Status(StrEnum):
    """The status of a clip; the script's docstring explains each."""

    DONE = "done"
    PENDING = "pending"
    UNAVAILABLE = "unavailable"
    PRIVATE = "private"
    BLOCKED = "blocked"
    GEO_BLOCKED = "geo-blocked"
    HTTP_ERROR = "http error"
    NETWORK_ERROR = "network error"
    WRONG_LENGTH = "wrong length"
    WRONG_SIZE = "wrong size"
    FAILED = "failed"


class DownloadFailure(Exception):  # noqa: N818 - an outcome of one clip, not an error of the program
    """A clip that could not be made: its video cannot be downloaded or decoded, or is not the right one.

    Attributes:
        status: The kind of failure.
        reason: The reason in the words of the site or the network.
        retry: Whether another attempt may succeed.
    """

    def __init__(self, status: Status, reason: str, retry: bool = False):
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry = retry


@dataclass(frozen=True)
class Result:
    """A line of download_status.csv.

    Attributes:
        video_id: The clip.
        status: Its status.
        frames: Number of frames; this and the next three are empty if the clip is not done.
        width: Width of a frame in pixels.
        height: Height of a frame in pixels.
        fps: Frames per second.
        reason: Why it is not done.
    """

    video_id: str
    status: Status
    frames: int | str = ""
    width: int | str = ""
    height: int | str = ""
    fps: float | str = ""
    reason: str = ""


def read_results(path: Path) -> dict[str, Result]:
    """The results of earlier runs, by id.

    Raises:
        OutputError: If the file was not written by this script.
    """
    if not path.exists():
        return {}
    try:
        rows = [row for _, row in read_table(path, [field.name for field in fields(Result)])]
        results = []
        for row in rows:
            values: dict[str, Any] = {**row, "status": Status(row["status"])}
            results.append(Result(**values))
    except (InputError, ValueError, TypeError) as error:
        raise OutputError(
            f"{path}: not a table of this script; remove it (finished clips are found without it)"
        ) from error
    return {result.video_id: result for result in results}


def write_results(path: Path, results: Mapping[str, Result], order: Sequence[str]) -> None:
    """Write the results in the order of the index; the file on disk is always complete."""
    rows = [asdict(results[video_id]) for video_id in order if video_id in results]
    write_csv(path, {field.name: [row[field.name] for row in rows] for field in fields(Result)})
