"""Cutting a clip out of a video: exactly its frames, or an error that says what is wrong with the video."""

from pathlib import Path

import av
import pytest
from av.video.reformatter import Colorspace
from download_videos import FRAMES, RATE, SIZE, read_numbers, write_video

from utils.download.cutting import VideoInfo, cut_frames, inspect_video
from utils.download.outcome import DownloadFailure, Status


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
