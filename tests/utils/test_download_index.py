"""The index of WFLW-V: what it lists, what is chosen from it, and how it is fetched."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from download_runs import Run, make_id

from utils.download import index as wflw_v_index
from utils.download.index import INDEX_URL, SHA256, Clip, WFLWVIndex, choose_clips, fetch_index, read_index
from utils.errors import InputError


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
