import csv
import hashlib
import io
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import pytube
import yt_dlp
from av.video.reformatter import Colorspace
from yt_dlp.utils import ExtractorError, GeoRestrictedError, UnavailableVideoError

from utils import download_WFLW_V
from utils.command_line import run
from utils.download import backends
from utils.download import index as wflw_v_index
from utils.download import run as download_run
from utils.download.backends import choose_format, choose_stream, explain_pytube, explain_yt_dlp
from utils.download.clip import Folders, Pace, Retries, get_clip
from utils.download.cutting import VideoInfo, cut_frames, inspect_video
from utils.download.index import INDEX_URL, SHA256, SPLIT_FILES, Clip, WFLWVIndex, choose_clips, fetch_index, read_index
from utils.download.outcome import DownloadFailure, Status
from utils.errors import InputError
from utils.files import locked_folder

ROOT = Path(__file__).parents[2]
SIZE = (96, 64)
FRAMES = 40
RATE = Fraction(30000, 1001)


def picture(number: int) -> np.ndarray:
    """A (64, 96, 3) uint8 image with a grey that is frame `number` alone, and a slope for the codec to work on."""
    slope = np.linspace(0, 40, SIZE[0])
    return np.repeat(np.tile(slope + 30 + 4 * number, (SIZE[1], 1))[..., None], 3, axis=2).astype(np.uint8)


def write_video(path: Path, codec: str = "libx264", gop_size: int = 12, colorspace: Colorspace | None = None) -> Path:
    """A video of the 40 pictures; its header comes first, so that a part of the file is a shorter video."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=RATE, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.gop_size = gop_size
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        for number in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="bgr24")))
        container.mux(stream.encode(None))
    return path


def read_frames(path: Path) -> np.ndarray:
    """All frames, (n, 64, 96, 3), as OpenCV sees them."""
    reader = cv2.VideoCapture(str(path))
    frames = []
    while (frame := reader.read()[1]) is not None:
        frames.append(frame.astype(np.float32))
    return np.array(frames)


def read_numbers(clip: Path, source: Path) -> list[int]:
    """The numbers that the frames of a clip have in its source, of which they may differ by half a grey level."""
    frames = read_frames(source)
    differences = np.array([np.abs(frame - frames).mean(axis=(1, 2, 3)) for frame in read_frames(clip)])
    assert differences.min(axis=1).max() < 0.5
    return differences.argmin(axis=1).tolist()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("source") / "source.mp4")


@dataclass
class Site:
    """A video site on the loopback address: what it answers for each id, and what it was asked.

    Answers: "video"; an HTTP status; "page", one without a video; "drop", half of a video; "drop once"; "hold", half of
    a video until `released` is set. Asked for the rest of a video, it sends the rest, except for "drop".
    """

    video: bytes
    answers: dict[str, str | int]
    address: str = ""
    asked: Counter = field(default_factory=Counter)
    ranges: list[str] = field(default_factory=list)
    cookies: set[str | None] = field(default_factory=set)
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url_template(self) -> str:
        return f"{self.address}/{{id}}.mp4"


@pytest.fixture
def site(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    state = Site(source.read_bytes(), {})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            video_id = Path(self.path).stem
            state.asked[video_id] += 1
            state.cookies.add(self.headers.get("Cookie"))
            answer = state.answers.get(video_id, 404)
            if isinstance(answer, int):
                self.send_error(answer)
            elif answer == "page":
                self.send_head(b"<html><title>no video</title></html>", "text/html")
            else:
                self.send_video(video_id, answer)

        def send_video(self, video_id: str, answer: str) -> None:
            body, half = state.video, len(state.video) // 2
            start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if start and int(start[1]) > 0 and answer != "drop":
                state.ranges.append(start[0])
                self.send_head(body[int(start[1]) :], "video/mp4", f"bytes {start[1]}-{len(body) - 1}/{len(body)}")
                return
            # The generic extractor first looks at the beginning of the page, then downloads it.
            looking = state.asked[video_id] % 2 == 1
            if looking or answer == "video":
                self.send_head(body, "video/mp4")
                return
            self.send_head(body, "video/mp4", send=half)
            if answer == "drop once":
                state.answers[video_id] = "video"
            if answer == "hold":
                state.held.set()
                state.released.wait(60)
                self.wfile.write(body[half:])
            self.close_connection = True

        def send_head(
            self, body: bytes, content_type: str, content_range: str | None = None, send: int | None = None
        ) -> None:
            self.send_response(200 if content_range is None else 206)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            if content_range is not None:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            self.wfile.write(body[:send])
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setattr(backends, "YOUTUBE_URL", state.url_template)
    yield state
    state.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def make_id(number: int) -> str:
    return f"clip_{number:06}"


def write_index(folder: Path, ranges: list[str], easy: list[str], hard: list[str]) -> Path:
    folder.mkdir()
    for name, lines in zip(SHA256, (ranges, easy, hard), strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Six clips, frames 5 to 20 of each video; the first four are easy."""
    ids = [make_id(number) for number in range(6)]
    return write_index(tmp_path / "index", [f"{video_id} 5 20" for video_id in ids], ids[:4], ids[4:])


@dataclass
class Run:
    status: int
    out: str
    err: str


@pytest.fixture
def download(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Run]:
    """Runs the script in this process."""

    def call(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["download_WFLW_V.py", *map(str, arguments)])
        try:
            status = run(download_WFLW_V.main)
        except SystemExit as end:
            status = end.code
        return Run(status, *capsys.readouterr())

    return call


def options(index: Path, output_folder: Path) -> list[object]:
    places = ["--output_folder", output_folder, "--index", index]
    return [*places, "--interval", 0, "--backoff", 0, "--retries", 1, "--n_processes", 3]


FROM_SITE = """
import sys
from utils import download_WFLW_V
from utils.command_line import run
from utils.download import backends

backends.YOUTUBE_URL = sys.argv.pop(1)
sys.exit(run(download_WFLW_V.main))
"""


def read_table(output_folder: Path) -> dict[str, dict[str, str]]:
    with (output_folder / "download_status.csv").open(newline="") as file:
        return {row["video_id"]: row for row in csv.DictReader(file)}


# Cutting.


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 39), (17, 31), (39, 39)])
def test_a_clip_has_exactly_the_frames_from_first_to_last(source: Path, tmp_path: Path, first: int, last: int):
    cut_frames(source, tmp_path / "clip.mp4", first, last)
    assert read_numbers(tmp_path / "clip.mp4", source) == list(range(first, last + 1))
    assert inspect_video(tmp_path / "clip.mp4") == VideoInfo(last - first + 1, *SIZE, pytest.approx(float(RATE)))


def test_a_source_of_another_codec_is_cut_as_exactly(tmp_path: Path):
    source = write_video(tmp_path / "source.webm", codec="libvpx-vp9")
    cut_frames(source, tmp_path / "clip.mp4", 8, 29)
    assert read_numbers(tmp_path / "clip.mp4", source) == list(range(8, 30))


def test_a_clip_keeps_the_colours_of_its_source_and_chooses_key_frames_of_its_own(tmp_path: Path):
    source = write_video(tmp_path / "source.mp4", gop_size=1, colorspace=Colorspace.ITU709)
    cut_frames(source, tmp_path / "clip.mp4", 8, 29)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == Colorspace.ITU709
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) == 1
    assert read_numbers(tmp_path / "clip.mp4", source) == list(range(8, 30))


def test_a_source_that_ends_before_the_clip_is_too_short(source: Path, tmp_path: Path):
    with pytest.raises(DownloadFailure, match="has 40 frames, the clip is its frames 30 to 40") as failure:
        cut_frames(source, tmp_path / "clip.mp4", 30, 40)
    assert (failure.value.status, failure.value.retry) == (Status.WRONG_LENGTH, False)


def test_half_a_source_is_damaged_and_not_too_short(source: Path, tmp_path: Path):
    half = tmp_path / "half.mp4"
    half.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert 0 < inspect_video(half).frames < FRAMES
    with pytest.raises(DownloadFailure) as failure:
        cut_frames(half, tmp_path / "clip.mp4", 30, 39)
    assert (failure.value.status, failure.value.retry) == (Status.FAILED, True)


def test_a_file_that_is_no_video_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "page.mp4").write_text("<html>")
    with pytest.raises(DownloadFailure, match=r"page\.mp4"):
        inspect_video(tmp_path / "page.mp4")


# The index.


def test_the_index_gives_the_clips_in_its_order_and_their_splits(index: Path):
    read = read_index(index)
    assert read.clips[1] == Clip(make_id(1), 5, 20)
    assert read.clips[1].frames == 16
    assert [clip.video_id for clip in read.in_split("hard")] == [make_id(4), make_id(5)]
    assert read.in_split("all") == read.clips


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("download_ranges.txt", "clip_000009 5", "expected a video id and two frame numbers"),
        ("download_ranges.txt", "clip_000009 5 x", "expected a video id and two frame numbers"),
        ("download_ranges.txt", "clip_000009 -5 20", "expected a video id and two frame numbers"),
        ("download_ranges.txt", "clip_000009 20 5", "the last frame, 5, is before the first, 20"),
        ("download_ranges.txt", "../x 5 20", "'../x' is not a YouTube video id"),
        ("download_ranges.txt", "clip_000002 5 20", "clip_000002 is in the file twice"),
        ("easy_video_IDs.txt", "clip_000009", "clip_000009 has no line in download_ranges.txt"),
        ("hard_video_IDs.txt", "../../../../x", "is not a YouTube video id"),
    ],
)
def test_a_malformed_line_of_the_index_is_an_error_with_file_and_line(
    index: Path, tmp_path: Path, download: Callable[..., Run], name: str, line: str, message: str
):
    number = len((index / name).read_text().splitlines()) + 1
    with (index / name).open("a") as file:
        file.write(f"{line}\n")
    ended = download("--output_folder", tmp_path / "out", "--index", index)
    assert ended.status == 2
    assert f"{index / name}, line {number}: " in ended.err
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_choice_of_clips_keeps_the_order_of_the_index():
    index = WFLWVIndex(
        tuple(Clip(make_id(number), 0, 9) for number in range(5)),
        {"easy": frozenset({make_id(3), make_id(1), make_id(0)}), "hard": frozenset({make_id(2), make_id(4)})},
    )
    chosen = choose_clips(index, "easy", [make_id(3), make_id(0)])
    assert [clip.video_id for clip in chosen] == [make_id(0), make_id(3)]
    assert choose_clips(index, "hard", limit=1) == (index.clips[2],)
    assert choose_clips(index, "all") == index.clips


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Three small files whose checksums stand for the published ones, served from a folder."""
    video_id = make_id(0)
    contents = dict(zip(SHA256, (f"{video_id} 5 20\n".encode(), f"{video_id}\n".encode(), b""), strict=True))
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(wflw_v_index, "SHA256", checksums)
    (tmp_path / "served").mkdir()
    for name, content in contents.items():
        (tmp_path / "served" / name).write_bytes(content)
    return contents


def test_the_index_is_fetched_once_and_checked(tmp_path: Path, published: dict[str, bytes]):
    url = (tmp_path / "served").as_uri() + "/{name}"
    fetch_index(tmp_path / "index", url)
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == published
    assert read_index(tmp_path / "index").clips == (Clip(make_id(0), 5, 20),)
    fetch_index(tmp_path / "index", "http://127.0.0.1:9/{name}")


def test_an_index_with_another_checksum_is_refused_and_not_kept(tmp_path: Path, published: dict[str, bytes]):
    (tmp_path / "served" / "easy_video_IDs.txt").write_text("tampered\n")
    with pytest.raises(InputError, match=r"easy_video_IDs\.txt: not the published file, its SHA-256 is"):
        fetch_index(tmp_path / "index", (tmp_path / "served").as_uri() + "/{name}")
    assert not (tmp_path / "index" / "easy_video_IDs.txt").exists()


def test_an_index_that_cannot_be_fetched_is_one_clear_error(
    tmp_path: Path, download: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    assert fetch_index.__defaults__ == (INDEX_URL,)
    monkeypatch.setattr(fetch_index, "__defaults__", ((tmp_path / "nowhere").as_uri() + "/{name}",))
    ended = download("--output_folder", tmp_path / "out")
    assert ended.status == 2
    assert re.fullmatch(r"error: file://\S+/download_ranges\.txt: cannot be fetched .* by --index\n", ended.err)


# The command line.


def test_every_clip_gets_its_status_and_none_stops_the_others(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run], source: Path
):
    out = tmp_path / "out"
    with (index / "download_ranges.txt").open("a") as file:
        file.write(f"{make_id(6)} 30 45\n{make_id(7)} 5 20\n")
    answers = ["video", 404, 403, "drop", "drop once", "page", "video", 503]
    site.answers = dict(zip(map(make_id, range(8)), answers, strict=True))
    ended = download(*options(index, out))
    assert ended.status == 1
    table = read_table(out)
    assert [table[make_id(number)]["status"] for number in range(8)] == [
        "done",
        "unavailable",
        "http error",
        "network error",
        "done",
        "failed",
        "wrong length",
        "http error",
    ]
    for number in (0, 4):
        assert read_numbers(out / "videos" / f"{make_id(number)}.mp4", source) == list(range(5, 21))
        row = table[make_id(number)]
        assert (row["frames"], row["width"], row["height"]) == ("16", "96", "64")
    assert len(list((out / "videos").iterdir())) == 2
    assert "404" in table[make_id(1)]["reason"]
    assert "403" in table[make_id(2)]["reason"]
    assert "40 frames" in table[make_id(6)]["reason"]
    # A video that is gone is asked for once, an answer that may change in both attempts.
    assert site.asked[make_id(1)] == 1
    assert site.asked[make_id(2)] == 2
    assert site.ranges, "a broken download must be gone on with, not begun again"
    assert "done: 2\nunavailable: 1\n" in ended.out
    assert "2 of 8 clips are in" in ended.out
    assert f"{make_id(1)}: unavailable: " in ended.out
    assert "https://github.com/polo5/LDEQ_RwR/issues/2" in ended.out
    assert "the index in" in ended.err


def test_all_done_is_exit_status_0_and_a_second_run_asks_the_site_for_nothing(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    out = tmp_path / "100% of $HOME, %(id)s"
    site.answers = {make_id(number): "video" for number in range(6)}
    first = download(*options(index, out), "--split", "easy", "--limit", 2)
    assert first.status == 0
    assert {path.name for path in tmp_path.iterdir()} == {"index", out.name}
    assert sorted(path.stem for path in (out / "videos").iterdir()) == [make_id(0), make_id(1)]
    assert (out / "splits" / SPLIT_FILES["hard"]).read_text() == f"{make_id(4)}\n{make_id(5)}\n"
    assert "bboxes/ is missing" in first.out
    assert "landmarks/ is missing" in first.out

    table, asked = (out / "download_status.csv").read_bytes(), site.asked.copy()
    (out / "bboxes").mkdir()
    second = download(*options(index, out), "--split", "easy", "--limit", 2)
    assert second.status == 0
    assert (site.asked, (out / "download_status.csv").read_bytes()) == (asked, table)
    assert "bboxes/ is missing" not in second.out

    third = download(*options(index, out), "--ids", f"{make_id(5)},{make_id(4)}")
    assert third.status == 0
    assert "2 of 2 clips" in third.out
    assert list(read_table(out)) == [make_id(0), make_id(1), make_id(4), make_id(5)]


def test_a_clip_that_is_not_whole_is_downloaded_again(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run], source: Path
):
    out = tmp_path / "out"
    (out / "videos").mkdir(parents=True)
    cut_frames(source, out / "videos" / f"{make_id(0)}.mp4", 5, 19)
    (out / "videos" / f"{make_id(1)}.mp4").write_bytes(source.read_bytes()[:500])
    cut_frames(source, out / "videos" / f"{make_id(2)}.mp4", 5, 20)
    site.answers = {make_id(number): "video" for number in range(3)}
    assert download(*options(index, out), "--limit", 3).status == 0
    for number in range(3):
        assert read_numbers(out / "videos" / f"{make_id(number)}.mp4", source) == list(range(5, 21))
    assert set(site.asked) == {make_id(0), make_id(1)}


def test_a_run_that_was_killed_goes_on_to_the_same_end(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    site.answers = {make_id(0): "video", make_id(1): "video", make_id(2): "video", make_id(3): 404}
    assert download(*options(index, tmp_path / "undisturbed"), "--limit", 4).status == 1

    out = tmp_path / "out"
    site.answers[make_id(2)] = "hold"
    site.asked.clear()
    script = [sys.executable, "-c", FROM_SITE, site.url_template, *map(str, options(index, out)), "--limit", "4"]
    process = subprocess.Popen(script, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert site.held.wait(60)
    wait_for(lambda: [row["status"] for row in read_table(out).values()] == ["done", "done", "pending", "unavailable"])
    process.send_signal(signal.SIGKILL)
    process.wait()
    site.released.set()

    before = site.asked.copy()
    ended = download(*options(index, out), "--limit", 4)
    assert ended.status == 1
    assert "done: 3\nunavailable: 1\n3 of 4 clips are in" in ended.out
    assert (out / "download_status.csv").read_bytes() == (tmp_path / "undisturbed/download_status.csv").read_bytes()
    for number in range(3):
        name = f"videos/{make_id(number)}.mp4"
        # Not the bytes: with several threads the encoder's differ from run to run.
        again, once = read_frames(out / name).astype(float), read_frames(tmp_path / "undisturbed" / name)
        assert again.shape == once.shape
        assert np.abs(again - once).mean() < 1
    assert len(list((out / "videos").iterdir())) == 3
    assert [site.asked[make_id(number)] for number in range(2)] == [before[make_id(number)] for number in range(2)]
    assert [path.name for path in (out / ".download").iterdir()] == []


def test_control_c_ends_the_run_and_keeps_what_is_done(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    site.answers = {make_id(0): "video", make_id(1): "hold"}

    class Stop(threading.Event):
        def set(self) -> None:
            super().set()
            site.released.set()

    monkeypatch.setattr(download_run, "threading", SimpleNamespace(Event=Stop))

    def press() -> None:
        assert site.held.wait(60)
        wait_for(lambda: (out / "download_status.csv").read_text().count("done") == 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    ended = download(*options(index, out), "--limit", 2)
    thread.join()
    assert ended.status == 130
    assert "run the same command to resume\n\nstopped by Ctrl-C\n" in ended.err
    assert [row["status"] for row in read_table(out).values()] == ["done", "pending"]
    assert [path.stem for path in (out / "videos").iterdir()] == [make_id(0)]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ids", "../x"], "--ids: '../x' is not a YouTube video id"),
        (["--ids", "clip_000099"], "--ids: clip_000099 not in the index"),
        (["--ids", "clip_000005", "--split", "easy"], "--ids: clip_000005 not in the index (--split easy)"),
        (["--index", "nowhere"], "nowhere: no such index folder"),
        (["--cookies", "nowhere.txt"], "nowhere.txt: no such file; export the browser's cookies"),
        (["--cookies", "README.md"], "README.md: not a cookie file"),
        (["--cookies", "cookies.txt", "--backend", "pytube"], "--cookies does not work with --backend pytube"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    index: Path,
    tmp_path: Path,
    download: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(ROOT)
    ended = download("--output_folder", tmp_path / "out", "--index", index, *arguments)
    assert ended.status == 2
    assert ended.err.startswith(f"error: {message}")
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_file_of_the_index_is_named(index: Path, tmp_path: Path, download: Callable[..., Run]):
    (index / "hard_video_IDs.txt").unlink()
    ended = download("--output_folder", tmp_path / "out", "--index", index)
    assert ended.status == 2
    assert ended.err.startswith(f"error: {index / 'hard_video_IDs.txt'}: no such file")


def test_a_table_of_something_else_is_refused_and_kept(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    (tmp_path / "out").mkdir()
    table = tmp_path / "out" / "download_status.csv"
    table.write_text("name,grade\nAda,1\n")
    ended = download(*options(index, tmp_path / "out"))
    assert ended.status == 2
    assert f"error: {table}: not a table of this script" in ended.err
    assert table.read_text() == "name,grade\nAda,1\n"


def test_a_second_run_into_the_same_folder_is_refused(index: Path, tmp_path: Path, download: Callable[..., Run]):
    script = "import sys; from tests.utils.test_download import *; hold_folder(Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        ended = download("--output_folder", tmp_path / "out", "--index", index)
        other.communicate("\n")
    assert ended.status == 2
    assert f"error: {tmp_path / 'out'}: another run is writing into this folder" in ended.err


def hold_folder(folder: Path) -> None:
    with locked_folder(folder):
        print("held", flush=True)
        sys.stdin.readline()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--backoff", "1e300"), ("--backoff", "nan"), ("--n_processes", "1000000000"), ("--retries", "-1")],
)
def test_a_number_outside_its_range_is_refused(option: str, value: str, tmp_path: Path, download: Callable[..., Run]):
    ended = download("--output_folder", tmp_path / "out", option, value)
    assert ended.status == 2
    assert f"argument {option}: must be" in ended.err
    assert not (tmp_path / "out").exists()


def test_the_wait_before_an_attempt_ends_at_a_day():
    assert [Retries(9, 10).wait_before(attempt) for attempt in (1, 2, 3, 1_000_000)] == [10, 20, 40, 86_400]


def test_the_choices_of_the_command_line_are_those_of_the_index():
    assert (*SPLIT_FILES, "all") == download_WFLW_V.SPLITS


def test_lists_of_easy_and_hard_clips_that_are_there_are_kept(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    splits = tmp_path / "out" / "splits"
    splits.mkdir(parents=True)
    (splits / SPLIT_FILES["easy"]).write_text("mine_000001\n")
    download(*options(index, tmp_path / "out"), "--retries", 0)
    assert (splits / SPLIT_FILES["easy"]).read_text() == "mine_000001\n"


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


def test_landmarks_that_are_there_tell_a_clip_of_another_size_or_length(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    landmarks = tmp_path / "out" / "landmarks"
    landmarks.mkdir(parents=True)
    inside = np.full((16, 98, 2), (90.0, 60.0))
    np.save(landmarks / f"{make_id(0)}.npy", inside)
    np.save(landmarks / f"{make_id(1)}.npy", 1.5 * inside)
    np.save(landmarks / f"{make_id(2)}.npy", inside[:15])
    (landmarks / f"{make_id(3)}.npy").write_text("no array")
    site.answers = {make_id(number): "video" for number in range(4)}
    ended = download(*options(index, tmp_path / "out"), "--limit", 4)
    table = read_table(tmp_path / "out")
    assert [table[make_id(number)]["status"] for number in range(4)] == ["done", "wrong size", "wrong length", "failed"]
    assert "100% of the landmarks lie outside the frame of 96 x 64" in table[make_id(1)]["reason"]
    assert [path.stem for path in (tmp_path / "out" / "videos").iterdir()] == [make_id(0)]
    assert site.asked[make_id(2)] == site.asked[make_id(3)] == 0
    assert "--max_resolution" in ended.out


def test_the_help_explains_every_option_and_every_status(download: Callable[..., Run]):
    ended = download("--help")
    assert ended.status == 0
    usage, _, text = ended.out.partition("Download the videos of WFLW-V")
    for option in set(re.findall(r"--[a-z_]+", usage)) - {"--help"}:
        assert f"    {option} " in text
    for status in Status:
        assert f"    {status} " in text


# Retries and pace.


class Recorder(threading.Event):
    """An event that is never set, and remembers how long it was waited for."""

    def __init__(self):
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


class Broken:
    def __init__(self, failure: Exception):
        self.failure = failure
        self.attempts = 0

    def download(self, video_id: str, folder: Path) -> Path:
        self.attempts += 1
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "waits", "status"),
    [
        (DownloadFailure(Status.HTTP_ERROR, "503", retry=True), [10, 20, 40], Status.HTTP_ERROR),
        (DownloadFailure(Status.PRIVATE, "private"), [], Status.PRIVATE),
        (KeyError("requested_downloads"), [], Status.FAILED),
    ],
)
def test_errors_that_may_pass_are_tried_again_after_twice_the_time(
    tmp_path: Path, failure: Exception, waits: list[float], status: Status
):
    folders, backend, stop = Folders(tmp_path), Broken(failure), Recorder()
    folders.work.mkdir()
    pace = Pace(0, threading.Event())
    result = get_clip(Clip(make_id(0), 0, 9), folders, backend, pace, Retries(4, 10), stop)
    assert (result.status, stop.waits, backend.attempts) == (status, waits, len(waits) + 1)
    assert list(folders.work.iterdir()) == []


def test_attempts_start_one_interval_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    stop = Recorder()
    pace = Pace(12, stop)
    for _ in range(3):
        pace.wait()
    assert stop.waits == [0, 12, 24]


def test_a_run_that_is_stopped_starts_no_further_attempt():
    stop = threading.Event()
    stop.set()
    with pytest.raises(DownloadFailure) as failure:
        Pace(0, stop).wait()
    assert failure.value.status == Status.PENDING


# The backends.


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
