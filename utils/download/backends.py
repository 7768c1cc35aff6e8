"""Downloading one video by yt-dlp or pytube, and classifying a failure.

pytube is no longer maintained. It is only loaded where it is used, so that its faults do not matter to yt-dlp.

The chosen format is the one closest to what the authors of WFLW-V can have used: at most 30 frames per second, because
no clip of their index is longer than five seconds at that rate, and a format with 50 or 60 numbers its frames
differently; then the largest whose smaller side is at most `max_resolution`; H.264 before other codecs; without sound.
"""

import http.client
import io
import re
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import yt_dlp
from yt_dlp.networking.exceptions import TransportError
from yt_dlp.utils import DownloadCancelled, GeoRestrictedError, YoutubeDLError

from utils.download.outcome import DownloadFailure, Status
from utils.errors import InputError, OptionError
from utils.reading import read_text

MAX_FPS = 30

TIMEOUT = 30  # Seconds without an answer.

YOUTUBE_URL = "https://www.youtube.com/watch?v={id}"


class Backend(Protocol):
    """A way to download a video."""

    def download(self, video_id: str, folder: Path) -> Path:
        """Download the pictures of a video.

        Args:
            video_id: YouTube's id.
            folder: Where to put files; an interrupted attempt is resumed from its files there.

        Returns:
            The complete video file in the folder.

        Raises:
            DownloadFailure: If it cannot be downloaded.
        """
        ...


class YtDlpBackend:
    """Downloads by yt-dlp.

    Args:
        max_resolution: Largest smaller side of the frames, in pixels.
        cookies: Content of a cookie file in the Netscape format, or None.
        stop: An event that is set when running downloads must end.
    """

    def __init__(
        self,
        max_resolution: int,
        cookies: str | None = None,
        stop: threading.Event | None = None,
    ):
        self._max_resolution = max_resolution
        self._cookies = cookies
        self._stop = stop or threading.Event()

    def download(self, video_id: str, folder: Path) -> Path:
        """See `Backend.download`."""
        options = {
            **choose_format(self._max_resolution),
            "outtmpl": "source.%(format_id)s.%(ext)s",
            "noplaylist": True,
            "fixup": "never",
            # The caller counts and spaces the attempts.
            "retries": 0,
            "extractor_retries": 0,
            "fragment_retries": 3,
            "skip_unavailable_fragments": False,
            "socket_timeout": TIMEOUT,
            # yt-dlp writes cookies back; with a copy in memory, parallel downloads do not write to one file.
            "cookiefile": None if self._cookies is None else io.StringIO(self._cookies),
            "progress_hooks": [self._end_if_stopped],
            "logger": _Silence(),
            "color": "never",
        }
        try:
            with _Downloader(options, folder) as downloader:
                info = downloader.extract_info(YOUTUBE_URL.replace("{id}", video_id))
        except DownloadCancelled as error:
            raise DownloadFailure(Status.PENDING, "stopped") from error
        except YoutubeDLError as error:
            raise explain_yt_dlp(error) from error
        return Path(info["requested_downloads"][0]["filepath"])

    def _end_if_stopped(self, progress: dict[str, Any]) -> None:
        if self._stop.is_set():
            raise DownloadCancelled


class PytubeBackend:
    """Downloads by pytube, which the original release used; today's site answers it with HTTP 400.

    Args:
        max_resolution: Largest height of the frames, in pixels.

    Raises:
        OptionError: If the package is missing or does not load.
    """

    def __init__(self, max_resolution: int):
        try:
            import pytube  # noqa: F401
        except Exception as error:
            raise OptionError(f"--backend pytube needs the package pytube ({error}); use --backend yt-dlp") from error
        self._max_resolution = max_resolution

    def download(self, video_id: str, folder: Path) -> Path:
        """See `Backend.download`; an interrupted attempt starts over."""
        import pytube.exceptions

        complete = folder / "source.mp4"
        if complete.is_file():
            return complete
        try:
            streams = pytube.YouTube(YOUTUBE_URL.replace("{id}", video_id)).streams
            stream = choose_stream(list(streams.filter(type="video", file_extension="mp4")), self._max_resolution)
            part = Path(stream.download(str(folder), "source.part", skip_existing=False, timeout=TIMEOUT))
        except (pytube.exceptions.PytubeError, OSError, http.client.HTTPException) as error:
            raise explain_pytube(error) from error
        return part.rename(complete)


class _Downloader(yt_dlp.YoutubeDL):
    """Writes into a folder of any name; yt-dlp itself would expand `%` and `$` in it."""

    def __init__(self, options: dict[str, Any], folder: Path):
        self._folder = folder
        super().__init__(options)

    def get_output_path(self, dir_type: str = "", filename: str | None = None) -> str:
        return str(self._folder / (filename or ""))


class _Silence:
    """A logger that prints nothing: errors come as exceptions."""

    def debug(self, message: str) -> None:
        pass

    info = warning = error = debug


def read_cookies(path: Path) -> str:
    """Read a cookie file.

    Returns:
        Its content.

    Raises:
        InputError: If it is missing or not in the Netscape format.
    """
    content = read_text(path, "export the browser's cookies for youtube.com")
    if not content.startswith(("# Netscape HTTP Cookie File", "# HTTP Cookie File")):
        raise InputError(f"{path}: not a cookie file in the Netscape format; export the cookies in that format")
    return content


def choose_format(max_resolution: int) -> dict[str, Any]:
    """The format rule of this module's docstring as options of yt-dlp."""
    slow = f"[fps<=?{MAX_FPS}]"
    return {"format": f"bv{slow}/b{slow}", "format_sort": [f"res:{max_resolution}", "vcodec:h264", "proto"]}


def choose_stream(streams: list[Any], max_resolution: int) -> Any:
    """Choose among pytube's streams by the format rule of this module's docstring; with sound if there is no other.

    Raises:
        DownloadFailure: If no stream fits.
    """
    small = [stream for stream in streams if _height(stream) <= max_resolution and stream.fps <= MAX_FPS]
    if not small:
        raise DownloadFailure(
            Status.FAILED, f"the site offers no MP4 of at most {MAX_FPS} frames per second and {max_resolution} pixels"
        )
    return max(small, key=lambda stream: (_height(stream), stream.video_codec.startswith("avc1"), stream.is_adaptive))


def _height(stream: Any) -> int:
    return int((stream.resolution or "0p").removesuffix("p"))


# The site gives its reasons only as text. The first row with a phrase that occurs in the text decides.
_PHRASES: tuple[tuple[Status, bool, tuple[str, ...]], ...] = (
    (Status.PRIVATE, False, ("private video", "video is private")),
    (Status.GEO_BLOCKED, False, ("in your country", "your location", "geo restrict")),
    (Status.BLOCKED, True, ("rate-limited", "try again later")),
    (Status.BLOCKED, False, ("sign in", "log in", "confirm your age", "age-restricted", "members", "captcha")),
    (Status.FAILED, False, ("requested format is not available", "unsupported url")),
    (Status.UNAVAILABLE, False, ("video unavailable", "is unavailable", "not available", "isn't available")),
    (Status.UNAVAILABLE, False, ("no longer available", "removed", "terminated", "does not exist")),
)


def explain_yt_dlp(error: YoutubeDLError) -> DownloadFailure:
    """Classify an exception of yt-dlp."""
    reason = _first_sentence(str(error))
    causes = list(_causes(error))
    if any(isinstance(cause, GeoRestrictedError) for cause in causes):
        return DownloadFailure(Status.GEO_BLOCKED, reason)
    if answer := re.search(r"HTTP Error (\d{3})", reason):
        return explain_http_status(int(answer[1]), reason)
    # A connection that breaks during the download is recognised only by this text.
    if "Got error: " in reason:
        return DownloadFailure(Status.NETWORK_ERROR, reason, retry=True)
    for status, retry, phrases in _PHRASES:
        if any(phrase in reason.lower() for phrase in phrases):
            return DownloadFailure(status, reason, retry)
    if any(isinstance(cause, TransportError) for cause in causes):
        return DownloadFailure(Status.NETWORK_ERROR, reason, retry=True)
    return DownloadFailure(Status.FAILED, reason)


def explain_pytube(error: Exception) -> DownloadFailure:
    """Classify an exception of pytube or of the network below it."""
    import pytube.exceptions

    reason = _first_sentence(str(error)) or type(error).__name__
    match error:
        case urllib.error.HTTPError():
            return explain_http_status(error.code, reason)
        case pytube.exceptions.VideoPrivate():
            return DownloadFailure(Status.PRIVATE, reason)
        case pytube.exceptions.VideoRegionBlocked():
            return DownloadFailure(Status.GEO_BLOCKED, reason)
        case pytube.exceptions.AgeRestrictedError() | pytube.exceptions.MembersOnly():
            return DownloadFailure(Status.BLOCKED, reason)
        case pytube.exceptions.VideoUnavailable():
            return DownloadFailure(Status.UNAVAILABLE, reason)
        case pytube.exceptions.MaxRetriesExceeded() | OSError() | http.client.HTTPException():
            return DownloadFailure(Status.NETWORK_ERROR, reason, retry=True)
    return DownloadFailure(Status.FAILED, f"{type(error).__name__}: {reason}")


def explain_http_status(code: int, reason: str) -> DownloadFailure:
    """Classify an HTTP error."""
    if code in (404, 410):
        return DownloadFailure(Status.UNAVAILABLE, reason)
    if code in (401, 429):
        return DownloadFailure(Status.BLOCKED, reason, retry=code == 429)
    # An expired address gets 403; the next attempt asks for a new address.
    return DownloadFailure(Status.HTTP_ERROR, reason, retry=code in (403, 408) or code >= 500)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and its causes, including those that yt-dlp records."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        recorded = (getattr(current, "exc_info", None) or (None, None))[1]
        waiting += [recorded, getattr(current, "cause", None), current.__cause__, current.__context__]


def _first_sentence(text: str) -> str:
    """A message in one line, without yt-dlp's prefix and advice."""
    line = " ".join(text.split()).removeprefix("ERROR: ")
    for end in ("; please report this issue", " (caused by", " Use --cookies", " Use --username"):
        line = line.partition(end)[0]
    return line
