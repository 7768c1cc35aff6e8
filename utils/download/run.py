"""A run of the downloader: many clips side by side, the table kept up to date."""

import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.download.backends import Backend, PytubeBackend, YtDlpBackend, read_cookies
from utils.download.clip import Folders, Pace, Retries, get_clip
from utils.download.index import SPLIT_FILES, WFLWVIndex, choose_clips, fetch_index, is_published, read_index
from utils.download.outcome import Result, Status, read_results, write_results
from utils.errors import OptionError
from utils.files import locked_folder, protect_inputs, write_text
from utils.progress import progress_bar

ANNOTATIONS = {
    "bboxes": "https://drive.google.com/file/d/17r2w3abzUsPlsDfqYOsjGGkTp2nvHxds/view",
    "landmarks": "https://drive.google.com/file/d/1ITmlgXydTogFa5HkE0NvluKAxA4LCloj/view",
}
READY_MADE = "https://github.com/polo5/LDEQ_RwR/issues/2"


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """The options of the downloader; the script's docstring explains each.

    Raises:
        OptionError: If two options exclude each other.
    """

    output_folder: Path
    n_processes: int = 4
    split: str = "all"
    ids: Sequence[str] | None = None
    limit: int | None = None
    index: Path | None = None
    cookies: Path | None = None
    backend: str = "yt-dlp"
    max_resolution: int = 720
    interval: float = 12
    retries: int = 3
    backoff: float = 10

    def __post_init__(self) -> None:
        if self.backend == "pytube" and self.cookies is not None:
            raise OptionError("--cookies does not work with --backend pytube; use --backend yt-dlp")


def download_clips(options: DownloadOptions) -> bool:
    """Download the clips that the options choose, and report on stdout.

    Returns:
        Whether all of them are done.

    Raises:
        UserError: If the index, the cookies or the output folder cannot be used.
    """
    stop = threading.Event()
    backend = make_backend(options, stop)
    folders = Folders(options.output_folder)
    # The user's own index is read before anything is written.
    index = None if options.index is None else read_index(options.index)
    if index is not None:
        choose_clips(index, options.split, options.ids, options.limit)
    with locked_folder(folders.root):
        if index is None:
            fetch_index(folders.work / "index")
            index = read_index(folders.work / "index")
        elif options.index is not None and not is_published(options.index):
            print(f"note: the index in {options.index} is not the published one", file=sys.stderr)
        asked = _run(options, folders, index, backend, stop)
    print(summarise(asked, options, folders))
    return all(result.status == Status.DONE for result in asked)


def _run(
    options: DownloadOptions, folders: Folders, index: WFLWVIndex, backend: Backend, stop: threading.Event
) -> list[Result]:
    """The results of the chosen clips, after all have been tried."""
    clips = choose_clips(index, options.split, options.ids, options.limit)
    protect_inputs(
        [folders.status_file, *map(folders.clip_file, clips)], [] if options.cookies is None else [options.cookies]
    )
    write_splits(folders.root / "splits", index)
    folders.clip_file(clips[0]).parent.mkdir(exist_ok=True)
    results = read_results(folders.status_file)
    for clip in clips:
        results.setdefault(clip.video_id, Result(clip.video_id, Status.PENDING))
    order = [clip.video_id for clip in index.clips]
    write_results(folders.status_file, results, order)

    retries = Retries(options.retries + 1, options.backoff)
    pace = Pace(options.interval, stop)
    executor = ThreadPoolExecutor(options.n_processes)
    try:
        tasks = [executor.submit(get_clip, clip, folders, backend, pace, retries, stop) for clip in clips]
        for task in progress_bar(len(tasks), "clip", items=as_completed(tasks)):
            result = task.result()
            results[result.video_id] = result
            write_results(folders.status_file, results, order)
            if result.status != Status.DONE:
                tqdm.write(f"{result.video_id}: {result.status}: {result.reason}")
    except KeyboardInterrupt:
        print("run the same command to resume", file=sys.stderr)
        raise
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)
    return [results[clip.video_id] for clip in clips]


def make_backend(options: DownloadOptions, stop: threading.Event) -> Backend:
    """The backend that the options choose.

    Raises:
        InputError: If the cookies cannot be read.
    """
    if options.backend == "pytube":
        return PytubeBackend(options.max_resolution)
    cookies = None if options.cookies is None else read_cookies(options.cookies)
    return YtDlpBackend(options.max_resolution, cookies, stop)


def write_splits(folder: Path, index: WFLWVIndex) -> None:
    """Write the lists of easy and hard clips; existing lists are kept."""
    for split, name in SPLIT_FILES.items():
        if not (folder / name).exists():
            write_text(folder / name, "".join(f"{clip.video_id}\n" for clip in index.in_split(split)))


def summarise(asked: Sequence[Result], options: DownloadOptions, folders: Folders) -> str:
    """The number of clips by status, and advice for those that are not done."""
    counts = Counter(result.status for result in asked)
    lines = [f"{status}: {counts[status]}" for status in Status if counts[status]]
    lines.append(f"{counts[Status.DONE]} of {len(asked)} clips are in {folders.root / 'videos'}")
    if counts[Status.DONE] < len(asked):
        lines.append(f"{folders.status_file} has the reasons for the others. The same command tries them again.")
        if options.backend == "pytube":
            lines.append("pytube has not worked against YouTube since 2023-24 (HTTP 400): use --backend yt-dlp.")
        if counts[Status.BLOCKED]:
            lines.append("blocked: give --cookies of a browser that is signed in, or wait some hours.")
        if counts[Status.WRONG_SIZE]:
            lines.append("wrong size: try another --max_resolution.")
        if counts[Status.UNAVAILABLE] + counts[Status.PRIVATE] + counts[Status.GEO_BLOCKED]:
            lines.append(f"The ready-made archive has the videos that are gone: {READY_MADE}")
    for name, address in ANNOTATIONS.items():
        if not (folders.root / name).is_dir():
            lines.append(f"{folders.root}/{name}/ is missing: unpack {address} in {folders.root}.")
    return "\n".join(lines)
