"""Download the videos of WFLW-V from YouTube and cut its clips out of them.

python utils/download_WFLW_V.py --output_folder /path/to/WFLW_V --n_processes 4
python utils/download_WFLW_V.py --output_folder /path/to/WFLW_V --split easy --limit 20
python utils/download_WFLW_V.py --output_folder /path/to/WFLW_V --ids=-3rDiJYQ6CQ,eEbMsJPwPEM --cookies cookies.txt

The output folder gets videos/<id>.mp4, one clip each, splits/{easy,hard}_video_IDs.txt and download_status.csv.
Landmarks and boxes come from elsewhere; at its end the script says from where, if they are not in the folder yet.

The same command again goes on where the last one was ended, however it was ended: a clip is written aside, and gets its
name once it has the right number of frames. Every run tries all the clips again that are not done.

    --output_folder D   where to put it all
    --n_processes N     downloads at once (default 4); threads, so that the end of the script ends all of them
    --split S           easy, hard or all (default)
    --ids ID,ID         these clips of the split only; with `=` before an id that begins with `-`
    --limit N           the first N clips of the choice only
    --index FOLDER      the index (utils/download/index.py), instead of fetching the published one
    --cookies FILE      cookies of a browser where you are signed in, in the Netscape format
    --backend B         yt-dlp (default) or pytube, which the original release used; pytube has not worked against
                        YouTube since 2023-24 (HTTP 400)
    --max_resolution P  the largest format whose smaller side is at most P pixels (default 720)
    --interval S        seconds from the start of one attempt to the next (default 12: yt-dlp's wiki gives about 300
                        videos an hour as YouTube's limit for guests)
    --retries N         further attempts after an error that may pass (default 3)
    --backoff S         seconds before the first of them, doubled for each (default 10)
    --url_template U    address of a video, with {id} for its id (yt-dlp only), for a mirror

The frames of the index count at most 30 per second: no clip is longer than 151. The resolution that the landmarks were
annotated at is not published; 720 was the most that YouTube offered as one file at that rate, pictures and sound, when
the data set was made. The size of each clip stands in download_status.csv.

    done            the clip has its frames
    pending         not tried yet
    unavailable     the video is gone
    private         the video is private now
    blocked         the site asks to sign in, for an age check, as a check for robots, or because of too many downloads
    geo-blocked     not offered in this country
    http error      another answer of the site; the reason has its number
    network error   the connection broke in every attempt
    wrong length    the video, or landmarks/<id>.npy, has not the frames that the index says
    wrong size      most of the landmarks in landmarks/<id>.npy lie outside the frame: not the annotated resolution
    failed          anything else; the reason says what

Exit status: 0 if all the clips asked for are done, 1 if some are not, 2 for bad input, 130 after Ctrl-C.
"""

import argparse
import csv
import fcntl
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

if __name__ == "__main__":
    # A script's own folder is what Python searches first; the imports below start from the repository's root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.command_line import non_negative_integer, positive_integer, run
from utils.download.backends import (
    YOUTUBE_URL,
    Backend,
    DownloadFailure,
    PytubeBackend,
    Status,
    YtDlpBackend,
    read_cookies,
)
from utils.download.cutting import VideoError, VideoInfo, VideoTooShortError, cut_frames, inspect_video
from utils.download.index import SPLIT_FILES, Clip, WFLWVIndex, check_video_id, fetch_index, is_published, read_index
from utils.errors import OptionError
from utils.files import prepare_output_folder, write_csv

ANNOTATIONS = {
    "bboxes": "https://drive.google.com/file/d/17r2w3abzUsPlsDfqYOsjGGkTp2nvHxds/view",
    "landmarks": "https://drive.google.com/file/d/1ITmlgXydTogFa5HkE0NvluKAxA4LCloj/view",
}
READY_MADE = "https://github.com/polo5/LDEQ_RwR/issues/2"


@dataclass(frozen=True)
class Result:
    """A line of download_status.csv.

    Attributes:
        video_id: The clip.
        status: How it stands.
        frames: Number of frames; empty, as the next three, if the clip is not done.
        width: Of a frame in pixels.
        height: Of a frame in pixels.
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


@dataclass(frozen=True)
class Folders:
    """Where things are in the output folder."""

    root: Path

    @property
    def work(self) -> Path:
        """The index, the lock, and what is not finished; beside the clips, so that a clip is finished by a renaming."""
        return self.root / ".download"

    @property
    def status_file(self) -> Path:
        """The table of results."""
        return self.root / "download_status.csv"

    def clip_file(self, clip: Clip) -> Path:
        """The finished clip."""
        return self.root / "videos" / f"{clip.video_id}.mp4"


@dataclass(frozen=True)
class Retries:
    """How often a download is tried again, and how fast.

    Attributes:
        attempts: All attempts, the first included.
        backoff: Seconds before the second attempt; doubled for each further one.
    """

    attempts: int
    backoff: float


class Pace:
    """Lets one attempt of all threads start every `interval` seconds."""

    def __init__(self, interval: float, stop: threading.Event):
        self._interval = interval
        self._stop = stop
        self._lock = threading.Lock()
        self._next = time.monotonic()

    def wait(self) -> None:
        """Wait for this thread's turn.

        Raises:
            DownloadFailure: If all is stopped meanwhile.
        """
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + self._interval
        if self._stop.wait(start - time.monotonic()):
            raise DownloadFailure(Status.PENDING, "stopped")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_folder", type=Path, required=True)
    parser.add_argument("--n_processes", type=positive_integer, default=4)
    parser.add_argument("--split", choices=(*SPLIT_FILES, "all"), default="all")
    parser.add_argument("--ids", type=lambda text: text.split(","), metavar="ID,ID")
    parser.add_argument("--limit", type=positive_integer, metavar="N")
    parser.add_argument("--index", type=Path, metavar="FOLDER")
    parser.add_argument("--cookies", type=Path, metavar="FILE")
    parser.add_argument("--backend", choices=("yt-dlp", "pytube"), default="yt-dlp")
    parser.add_argument("--max_resolution", type=positive_integer, default=720, metavar="PIXELS")
    parser.add_argument("--interval", type=non_negative_integer, default=12, metavar="SECONDS")
    parser.add_argument("--retries", type=non_negative_integer, default=3, metavar="N")
    parser.add_argument("--backoff", type=non_negative_integer, default=10, metavar="SECONDS")
    parser.add_argument("--url_template", default=YOUTUBE_URL, metavar="URL")
    return parser.parse_args()


def main() -> None:
    """Download what the command line asks for."""
    args = parse_arguments()
    stop = threading.Event()
    backend = make_backend(args, stop)
    folders = Folders(args.output_folder)
    if args.index is not None:
        index = read_index(args.index)
        clips = choose_clips(index, args.split, args.ids, args.limit)
    prepare_output_folder(folders.root)
    prepare_output_folder(folders.work)
    with lock(folders.work / "lock"):
        if args.index is None:
            fetch_index(folders.work / "index")
            index = read_index(folders.work / "index")
            clips = choose_clips(index, args.split, args.ids, args.limit)
        elif not is_published(args.index):
            print(f"note: the index in {args.index} is not the published one", file=sys.stderr)
        write_splits(folders.root / "splits", index)
        prepare_output_folder(folders.root / "videos")
        results = read_results(folders.status_file)
        for clip in clips:
            results.setdefault(clip.video_id, Result(clip.video_id, Status.PENDING))
        order = [clip.video_id for clip in index.clips]
        write_results(folders.status_file, results, order)

        retries = Retries(args.retries + 1, args.backoff)
        pace = Pace(args.interval, stop)
        executor = ThreadPoolExecutor(args.n_processes)
        try:
            tasks = [executor.submit(get_clip, clip, folders, backend, pace, retries, stop) for clip in clips]
            for task in tqdm(as_completed(tasks), total=len(tasks), unit="clip", smoothing=0):
                result = task.result()
                results[result.video_id] = result
                write_results(folders.status_file, results, order)
                if result.status != Status.DONE:
                    tqdm.write(f"{result.video_id}: {result.status}: {result.reason}")
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            sys.exit(130)
        finally:
            stop.set()
            executor.shutdown(cancel_futures=True)

    asked = [results[clip.video_id] for clip in clips]
    print(summarise(asked, args, folders))
    if any(result.status != Status.DONE for result in asked):
        sys.exit(1)


def make_backend(args: argparse.Namespace, stop: threading.Event) -> Backend:
    """The backend that the options ask for.

    Raises:
        OptionError: If it cannot do what other options ask for.
        InputError: If the cookies cannot be read.
    """
    if args.backend == "pytube":
        if args.cookies is not None or args.url_template != YOUTUBE_URL:
            raise OptionError("--backend pytube knows no --cookies and no --url_template; use --backend yt-dlp")
        return PytubeBackend(args.max_resolution)
    if not args.url_template.startswith(("http://", "https://")) or "{id}" not in args.url_template:
        raise OptionError(f"--url_template {args.url_template}: must begin with http:// or https:// and contain {{id}}")
    cookies = None if args.cookies is None else read_cookies(args.cookies)
    return YtDlpBackend(args.max_resolution, args.url_template, cookies, stop)


def choose_clips(
    index: WFLWVIndex, split: str, ids: Sequence[str] | None = None, limit: int | None = None
) -> tuple[Clip, ...]:
    """The clips that the options ask for, in the order of the index.

    Args:
        index: The index.
        split: "easy", "hard" or "all".
        ids: Only these; None for all.
        limit: At most so many; None for all.

    Raises:
        InputError: If an id is malformed.
        OptionError: If an id is not in the split, or nothing is left.
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


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keep a second run out of the output folder until this one has ended, in whatever way.

    Raises:
        OptionError: If there is one already.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OptionError(
                f"{path.parent.parent}: another run is downloading into this folder; wait for it, or choose another"
            ) from None
        except OSError:
            # Some network file systems have no locks.
            pass
        yield


def write_splits(folder: Path, index: WFLWVIndex) -> None:
    """Write the lists of easy and hard clips, where there are none: those that are there rule."""
    prepare_output_folder(folder)
    for split, name in SPLIT_FILES.items():
        if not (folder / name).exists():
            part = folder / f"{name}.part"
            part.write_text("".join(f"{clip.video_id}\n" for clip in index.in_split(split)), encoding="utf-8")
            part.replace(folder / name)


def read_results(path: Path) -> dict[str, Result]:
    """What earlier runs have written, by id.

    Raises:
        OptionError: If the file is not of this script.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        results = [Result(**{**row, "status": Status(row["status"])}) for row in rows]
    except (csv.Error, OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path}: not a table of this script; remove it, finished clips are recognised without it"
        ) from error
    return {result.video_id: result for result in results}


def write_results(path: Path, results: Mapping[str, Result], order: Sequence[str]) -> None:
    """Write the results in the order of the index; the file is whole at any moment."""
    rows = [asdict(results[video_id]) for video_id in order if video_id in results]
    part = path.with_name(f"{path.name}.part")
    write_csv(part, {field.name: [row[field.name] for row in rows] for field in fields(Result)})
    part.replace(path)


def get_clip(
    clip: Clip, folders: Folders, backend: Backend, pace: Pace, retries: Retries, stop: threading.Event
) -> Result:
    """Make sure that a clip is there: find it, or download its video and cut it.

    Args:
        clip: The clip.
        folders: Where it goes.
        backend: What downloads its video.
        pace: What spaces the attempts.
        retries: How often to try.
        stop: Set when there is no more use in trying.

    Returns:
        How the clip stands. Whatever happens to one clip is a result, so that the others go on.
    """
    failure = DownloadFailure(Status.PENDING, "")
    for attempt in range(retries.attempts):
        if attempt > 0 and stop.wait(retries.backoff * 2 ** (attempt - 1)):
            break
        try:
            info = find_clip(clip, folders) or download_clip(clip, folders, backend, pace)
            return Result(clip.video_id, Status.DONE, **asdict(info))
        except DownloadFailure as error:
            failure = error
        except Exception as error:
            failure = DownloadFailure(Status.FAILED, f"{type(error).__name__}: {error}")
        if not failure.retry:
            break
    return Result(clip.video_id, failure.status, reason=failure.reason)


def find_clip(clip: Clip, folders: Folders) -> VideoInfo | None:
    """What is known of the clip if it is there and right, else None.

    Raises:
        DownloadFailure: If a download would be of no use, because the landmarks are not those of the clip.
    """
    landmarks = read_landmarks(clip, folders)
    path = folders.clip_file(clip)
    if not path.exists():
        return None
    try:
        return check_clip(path, clip, landmarks)
    except (DownloadFailure, VideoError):
        return None


def download_clip(clip: Clip, folders: Folders, backend: Backend, pace: Pace) -> VideoInfo:
    """Download a video aside when it is its turn, cut the clip, check it, and give it its name.

    Raises:
        DownloadFailure: If one of these fails.
    """
    pace.wait()
    work = folders.work / clip.video_id
    work.mkdir(exist_ok=True)
    keep = False
    try:
        return make_clip(clip, folders, backend, work)
    except DownloadFailure as error:
        # The next attempt, or the next run, goes on with what has come before the connection broke.
        keep = error.status in (Status.NETWORK_ERROR, Status.PENDING)
        raise
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def make_clip(clip: Clip, folders: Folders, backend: Backend, work: Path) -> VideoInfo:
    """As `download_clip`, in a folder `work` for everything that is not finished."""
    source, part = backend.download(clip.video_id, work), work / "clip.mp4"
    try:
        cut_frames(source, part, clip.first, clip.last)
        info = check_clip(part, clip, read_landmarks(clip, folders))
    except VideoTooShortError as error:
        raise DownloadFailure(Status.WRONG_LENGTH, str(error)) from error
    except VideoError as error:
        raise DownloadFailure(Status.FAILED, str(error), retry=True) from error
    part.replace(folders.clip_file(clip))
    return info


def read_landmarks(clip: Clip, folders: Folders) -> np.ndarray | None:
    """The landmarks of a clip, (frames, 98, 2) in pixels, if they are in the output folder already.

    Raises:
        DownloadFailure: If they are not the clip's.
    """
    path = folders.root / "landmarks" / f"{clip.video_id}.npy"
    if not path.exists():
        return None
    try:
        landmarks = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise DownloadFailure(Status.FAILED, f"{path} cannot be read ({error})") from error
    if landmarks.ndim != 3 or landmarks.shape[2] != 2:
        raise DownloadFailure(Status.FAILED, f"{path} has the shape {landmarks.shape}, not (frames, 98, 2)")
    if len(landmarks) != clip.frames:
        raise DownloadFailure(Status.WRONG_LENGTH, f"{path} has {len(landmarks)} frames, the index says {clip.frames}")
    return landmarks


def check_clip(path: Path, clip: Clip, landmarks: np.ndarray | None) -> VideoInfo:
    """Make sure that a file is the clip: by the number of its frames and, where there are landmarks, by its size.

    Raises:
        DownloadFailure: If it is not.
        VideoError: If it is no video.
    """
    info = inspect_video(path)
    if info.frames != clip.frames:
        raise DownloadFailure(Status.WRONG_LENGTH, f"the clip has {info.frames} frames instead of {clip.frames}")
    if landmarks is not None:
        outside = ((landmarks < 0) | (landmarks > (info.width, info.height))).any(axis=-1).mean()
        if outside > 0.5:
            raise DownloadFailure(
                Status.WRONG_SIZE,
                f"{outside:.0%} of the landmarks lie outside the frame of {info.width} x {info.height} pixels",
            )
    return info


def summarise(asked: Sequence[Result], args: argparse.Namespace, folders: Folders) -> str:
    """How many clips stand how, and what can be done about it."""
    counts = Counter(result.status for result in asked)
    lines = [f"{status}: {counts[status]}" for status in Status if counts[status]]
    lines.append(f"{counts[Status.DONE]} of {len(asked)} clips are in {folders.root / 'videos'}")
    if counts[Status.DONE] < len(asked):
        lines.append(f"The others, and why: {folders.status_file}. The same command tries them again.")
        if args.backend == "pytube":
            lines.append("pytube has not worked against YouTube since 2023-24 (HTTP 400): use --backend yt-dlp.")
        if counts[Status.BLOCKED]:
            lines.append("blocked: give the cookies of a browser that is signed in by --cookies, or wait some hours.")
        if counts[Status.WRONG_SIZE]:
            lines.append("wrong size: try another --max_resolution.")
        if counts[Status.UNAVAILABLE] + counts[Status.PRIVATE] + counts[Status.GEO_BLOCKED]:
            lines.append(f"Videos that are gone are in the ready-made archive: {READY_MADE}")
    for name, address in ANNOTATIONS.items():
        if not (folders.root / name).is_dir():
            lines.append(f"{name}/ is missing in {folders.root}: unpack {address} there.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run(main))
