"""What yt-dlp and pytube are asked for, and what becomes of what they say."""

import io
import urllib.error
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytube
import yt_dlp
from download_runs import Run, make_id, options, read_table
from download_site import Site
from download_videos import read_numbers
from yt_dlp.utils import ExtractorError, GeoRestrictedError, UnavailableVideoError

from utils.download.backends import choose_format, choose_stream, explain_pytube, explain_yt_dlp
from utils.download.outcome import DownloadFailure, Status


def test_cookies_reach_the_site_and_the_file_stays_as_it_is(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    site.answers = {make_id(0): "video"}
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tsecret\n")
    before = cookies.read_bytes()
    assert download(*options(index, tmp_path / "out"), "--cookies", cookies, "--limit", 1).status == 0
    assert site.cookies == {"session=secret"}
    assert cookies.read_bytes() == before


@pytest.mark.parametrize(
    ("message", "status", "retry"),
    [
        ("Private video. Sign in if you've been granted access to this video", Status.PRIVATE, False),
        ("Video unavailable. This video is no longer available", Status.UNAVAILABLE, False),
        ("This video has been removed by the uploader", Status.UNAVAILABLE, False),
        (
            "Video unavailable. This video contains content from X, who has blocked it in your country",
            "geo-blocked",
            False,
        ),
        ("Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies", Status.BLOCKED, False),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", Status.BLOCKED, False),
        ("This content isn't available, try again later. The session has been rate-limited", Status.BLOCKED, True),
        ("Join this channel to get access to members-only content", Status.BLOCKED, False),
        ("Requested format is not available. Use --list-formats", Status.FAILED, False),
        ("Unable to extract yt initial data; please report this issue on https://example.org", Status.FAILED, False),
    ],
)
def test_what_the_site_says_becomes_a_status(message: str, status: Status, retry: bool):
    failure = explain_yt_dlp(raised_by_yt_dlp(ExtractorError(message, expected=True, video_id="x", ie="youtube")))
    assert (failure.status, failure.retry) == (status, retry)
    assert failure.reason.startswith("[youtube] x: ")
    assert "report this issue" not in failure.reason


def test_a_video_that_is_not_offered_here_is_geo_blocked_whatever_is_said():
    assert explain_yt_dlp(raised_by_yt_dlp(GeoRestrictedError("No."))).status == Status.GEO_BLOCKED


def test_a_full_disk_is_no_network_error():
    full = UnavailableVideoError(OSError(28, "No space left on device"))
    failure = explain_yt_dlp(raised_by_yt_dlp(full))
    assert (failure.status, failure.retry) == (Status.FAILED, False)
    assert "No space left on device" in failure.reason


def raised_by_yt_dlp(error: Exception) -> yt_dlp.utils.DownloadError:
    """The exception in the form in which YoutubeDL hands it out."""
    with yt_dlp.YoutubeDL({"quiet": True, "logger": SimpleNamespace(error=lambda _: None)}) as downloader:
        try:
            raise error
        except Exception as caught:
            with pytest.raises(yt_dlp.utils.DownloadError) as raised:
                downloader.report_error(str(caught))
    return raised.value


def offer(format_id: str, width: int, height: int, fps: int, vcodec: str = "avc1.64", acodec: str = "none") -> dict:
    return {
        "format_id": format_id,
        "url": f"http://localhost/{format_id}",
        "ext": "mp4",
        "width": width,
        "height": height,
        "fps": fps,
        "vcodec": vcodec,
        "acodec": acodec,
    }


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        ([offer("360", 640, 360, 30), offer("720", 1280, 720, 30), offer("1080", 1920, 1080, 30)], "720"),
        ([offer("720_av1", 1280, 720, 30, "av01.0"), offer("720", 1280, 720, 30)], "720"),
        ([offer("tall_720", 720, 1280, 25), offer("tall_480", 480, 854, 25)], "tall_720"),
        ([offer("480", 854, 480, 30), offer("720_at_60", 1280, 720, 60)], "480"),
        ([offer("1080", 1920, 1080, 30)], "1080"),
        ([offer("sound", 1280, 720, 30, acodec="mp4a")], "sound"),
    ],
)
def test_the_format_is_the_largest_up_to_720_at_most_30_frames_per_second(offers: list[dict], chosen: str):
    with yt_dlp.YoutubeDL({"quiet": True, "simulate": True, **choose_format(720)}) as downloader:
        video = {"id": "x", "title": "x", "formats": offers, "extractor": "x", "extractor_key": "x"}
        assert downloader.process_video_result(video)["format_id"] == chosen


class FakeStream:
    """As pytube's Stream."""

    def __init__(self, resolution: str | None, fps: int, source: Path | None = None, codec: str = "avc1.64001F"):
        self.resolution, self.fps, self.source = resolution, fps, source
        self.video_codec, self.is_adaptive = codec, True

    def download(self, output_path: str, filename: str, skip_existing: bool, timeout: int) -> str:
        path = Path(output_path) / filename
        path.write_bytes(self.source.read_bytes())
        return str(path)


def test_pytubes_stream_is_chosen_by_the_same_rule():
    streams = [FakeStream("1080p", 30), FakeStream("720p", 60), FakeStream("480p", 30), FakeStream(None, 30)]
    assert choose_stream(streams, 720) is streams[2]
    with pytest.raises(DownloadFailure, match="at most 30 frames per second and 720 pixels"):
        choose_stream(streams[:2], 720)


def test_the_pytube_backend_makes_the_same_clip(
    index: Path, tmp_path: Path, download: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, source: Path
):
    addresses = []

    def youtube(address: str) -> SimpleNamespace:
        addresses.append(address)
        return SimpleNamespace(streams=SimpleNamespace(filter=lambda **_: [FakeStream("720p", 30, source)]))

    monkeypatch.setattr(pytube, "YouTube", youtube)
    common = ["--output_folder", tmp_path / "out", "--index", index, "--interval", 0]
    assert download(*common, "--backend", "pytube", "--limit", 1).status == 0
    assert read_numbers(tmp_path / "out" / "videos" / f"{make_id(0)}.mp4", source) == list(range(5, 21))
    assert addresses == [f"https://www.youtube.com/watch?v={make_id(0)}"]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (urllib.error.HTTPError("http://localhost", 400, "Bad Request", {}, io.BytesIO()), Status.HTTP_ERROR, False),
        (urllib.error.HTTPError("http://localhost", 429, "Too Many", {}, io.BytesIO()), Status.BLOCKED, True),
        (urllib.error.URLError("refused"), Status.NETWORK_ERROR, True),
        (pytube.exceptions.VideoPrivate("x"), Status.PRIVATE, False),
        (pytube.exceptions.VideoRegionBlocked("x"), Status.GEO_BLOCKED, False),
        (pytube.exceptions.AgeRestrictedError("x"), Status.BLOCKED, False),
        (pytube.exceptions.VideoUnavailable("x"), Status.UNAVAILABLE, False),
        (pytube.exceptions.RegexMatchError("caller", "pattern"), Status.FAILED, False),
    ],
)
def test_what_pytube_raises_becomes_a_status(error: Exception, status: Status, retry: bool):
    failure = explain_pytube(error)
    assert (failure.status, failure.retry) == (status, retry)


def test_a_pytube_that_fails_says_to_use_yt_dlp(
    index: Path, tmp_path: Path, download: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    def youtube(address: str) -> None:
        raise urllib.error.HTTPError(address, 400, "Bad Request", {}, io.BytesIO())

    monkeypatch.setattr(pytube, "YouTube", youtube)
    common = ["--output_folder", tmp_path / "out", "--index", index, "--interval", 0]
    ended = download(*common, "--backend", "pytube", "--limit", 1)
    assert ended.status == 1
    assert "HTTP Error 400" in read_table(tmp_path / "out")[make_id(0)]["reason"]
    assert "use --backend yt-dlp" in ended.out
