"""The reader of WFLW-V and the stream of crops, on synthetic clips."""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from damage import damage_one_frame
from synthetic_clips import DAMAGES, short_video, write_clip, write_split

from datasets import wflw_v
from datasets.clip_stream import TimeStep, plan_slots, read_crops, stream_crops
from datasets.wflw import Face, crop_face
from datasets.wflw_v import Clip, list_clips, published_results, read_boxes, read_frames, read_landmarks
from utils.crops import CropRule
from utils.errors import ClipError, InputError
from utils.geometry import box_to_crop, steady_box, transform_points

LENGTHS = {"a": 20, "b": 6, "c": 9, "d": 1}


@pytest.fixture(scope="module")
def four_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of the lengths above, easy and hard; not to be changed."""
    root = tmp_path_factory.mktemp("four_clips")
    for seed, (video_id, frames) in enumerate(LENGTHS.items()):
        write_clip(root, video_id, frames, seed)
    write_split(root, "easy", ["c", "a"])
    write_split(root, "hard", ["b", "d"])
    return root


def decode(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    return frames


def make_pair(root: Path) -> Path:
    """Two sound clips, of 8 and 6 frames."""
    write_clip(root, "a", 8)
    write_clip(root, "b", 6, seed=1)
    return root


def frames_of(steps: list[TimeStep]) -> dict[int, list[int]]:
    """The positions of the frames of every clip in the order in which they came."""
    positions: dict[int, list[int]] = {}
    for step in steps:
        for clip, frame in zip(step.clips.tolist(), step.frames.tolist(), strict=True):
            positions.setdefault(clip, []).append(frame)
    return positions


def test_lists_of_a_folder_give_the_splits_in_their_order(four_clips: Path):
    assert [(clip.video_id, clip.frames) for clip in list_clips(four_clips, "easy").clips] == [("c", 9), ("a", 20)]
    assert [clip.video_id for clip in list_clips(four_clips, "hard").clips] == ["b", "d"]
    clips = list_clips(four_clips, "all")
    assert [(clip.video_id, clip.split) for clip in clips.clips] == [
        ("c", "easy"),
        ("a", "easy"),
        ("b", "hard"),
        ("d", "hard"),
    ]
    assert clips.broken == {}


def test_without_lists_the_easy_clips_are_those_with_published_results(tmp_path: Path):
    published = list(published_results())
    assert len(published) == 500
    for video_id in (published[3], "another_one"):
        write_clip(tmp_path, video_id, 2)
    easy = list_clips(tmp_path, "easy")
    assert [clip.video_id for clip in easy.clips] == [published[3]]
    assert list(easy.broken) == published[:3] + published[4:]
    assert [clip.video_id for clip in list_clips(tmp_path, "hard").clips] == ["another_one"]
    everything = list_clips(tmp_path, "all")
    assert [clip.video_id for clip in everything.clips] == [published[3], "another_one"]
    assert everything.broken == {}


@pytest.mark.parametrize(("listed", "other"), [("easy", "hard"), ("hard", "easy")])
def test_with_one_list_the_other_split_is_what_it_leaves_out(listed: str, other: str, tmp_path: Path):
    write_split(make_pair(tmp_path), listed, ["b"])
    assert [(clip.video_id, clip.split) for clip in list_clips(tmp_path, listed).clips] == [("b", listed)]
    assert {(clip.video_id, clip.split) for clip in list_clips(tmp_path, "all").clips} == {("b", listed), ("a", other)}
    assert "a" in [clip.video_id for clip in list_clips(tmp_path, other).clips]


def test_a_list_that_is_no_file_is_an_error(tmp_path: Path):
    write_split(make_pair(tmp_path), "hard", ["b"])
    (tmp_path / "splits" / "easy_video_IDs.txt").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"easy_video_IDs\.txt: no such file"):
        list_clips(tmp_path, "all")


@pytest.mark.parametrize(
    ("split", "ids", "message"),
    [
        ("easy", ["a", "b", "a"], r"easy_video_IDs\.txt: a is in the list twice"),
        ("hard", [], r"hard_video_IDs\.txt: lists no clip"),
        ("easy", ["x", "y"], r"has none of the 2 clips of the split 'easy'; x: landmarks/x\.npy: no such file"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error(split: str, ids: list[str], message: str, tmp_path: Path):
    write_split(make_pair(tmp_path), split, ids)
    with pytest.raises(InputError, match=message):
        list_clips(tmp_path, split)


@pytest.mark.parametrize(("split", "other"), [("easy", "hard"), ("hard", "easy")])
def test_an_empty_list_of_the_other_split_does_not_matter(split: str, other: str, tmp_path: Path):
    write_split(make_pair(tmp_path), split, ["a", "b"])
    write_split(tmp_path, other, [])
    assert [clip.video_id for clip in list_clips(tmp_path, split).clips] == ["a", "b"]
    with pytest.raises(InputError, match=rf"{other}_video_IDs\.txt: lists no clip; the file is empty"):
        list_clips(tmp_path, "all")


@pytest.mark.parametrize(("split", "other"), [("easy", "hard"), ("hard", "easy")])
def test_an_empty_list_is_an_error_if_the_split_is_what_it_leaves_out(split: str, other: str, tmp_path: Path):
    write_split(make_pair(tmp_path), other, [])
    with pytest.raises(InputError, match=rf"{other}_video_IDs.*: lists no clip, and the split {split} is what"):
        list_clips(tmp_path, split)


def test_a_clip_in_both_lists_is_an_error(tmp_path: Path):
    make_pair(tmp_path)
    write_split(tmp_path, "easy", ["a", "b"])
    write_split(tmp_path, "hard", ["b"])
    with pytest.raises(InputError, match="b is in both lists"):
        list_clips(tmp_path, "all")


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="gone: no such dataset folder"):
        list_clips(tmp_path / "gone")


@pytest.mark.parametrize("video_id", ["../a", "/etc/passwd", "videos/a", "..", "a\\b", "a\tb"])
def test_an_id_with_a_path_in_it_is_never_opened(video_id: str, tmp_path: Path):
    write_split(make_pair(tmp_path), "easy", ["a", video_id])
    clips = list_clips(tmp_path, "easy")
    assert [clip.video_id for clip in clips.clips] == ["a"]
    assert "is not a plain file name" in clips.broken[video_id]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_clip_has_one_reason_and_the_other_one_comes_whole(damage, reason: str, tmp_path: Path):
    write_split(make_pair(tmp_path), "easy", ["a", "b"])
    damage(tmp_path, "b")
    listed = list_clips(tmp_path)
    steps = list(stream_crops(listed.clips, slots=2, size=64))
    ends = {listed.clips[end.clip].video_id: end.reason for step in steps for end in step.ended}
    assert frames_of(steps)[0] == list(range(8))
    assert ends["a"] is None
    assert (listed.broken | ends)["b"].startswith(reason)
    assert "\n" not in (listed.broken | ends)["b"]


def test_a_crop_is_that_of_its_box_and_goes_back_by_its_matrix(four_clips: Path):
    (clip,) = (clip for clip in list_clips(four_clips).clips if clip.video_id == "c")
    crops = list(read_crops(clip, 256))
    pictures = decode(clip.video_path)
    assert len(crops) == len(pictures) == 9
    for crop, picture, box in zip(crops, pictures, read_boxes(clip), strict=True):
        matrix = box_to_crop(box)
        expected = cv2.warpAffine(picture, matrix, (256, 256))[..., ::-1]
        np.testing.assert_array_equal(crop.images[0], expected)
        np.testing.assert_allclose(256 * crop.matrices[0], matrix)
        # The box of 60 pixels fills 1 / 1.2 of the crop.
        corners = transform_points([box[:2], box[2:4]], crop.matrices[0])
        np.testing.assert_allclose(corners, [[1 / 12] * 2, [11 / 12] * 2], atol=0.02)


def test_a_small_crop_is_made_as_that_of_a_still(four_clips: Path, tmp_path: Path):
    (clip,) = (clip for clip in list_clips(four_clips).clips if clip.video_id == "d")
    cv2.imwrite(str(tmp_path / "still.png"), decode(clip.video_path)[0])
    face = Face("still", tmp_path / "still.png", read_landmarks(clip)[0], read_boxes(clip)[0])
    (crop,) = read_crops(clip, 64)
    image, landmarks = crop_face(face, 64)
    np.testing.assert_array_equal(crop.images[0], image)
    np.testing.assert_allclose(transform_points(face.landmarks, crop.matrices[0]), landmarks)


def test_a_frame_is_cut_out_in_every_way_that_is_asked_for(four_clips: Path):
    clip = list_clips(four_clips).clips[0]
    box = read_boxes(clip)[0]
    rules = (CropRule(), CropRule(exact=True))
    frame = next(read_crops(clip, 64, rules))
    assert frame.images.shape == (2, 64, 64, 3)
    for rule, matrix in zip(rules, frame.matrices, strict=True):
        np.testing.assert_allclose(256 * matrix, box_to_crop(box, exact=rule.exact))
    step = next(stream_crops([clip], 1, 64, rules=rules))
    np.testing.assert_array_equal(step.images[0], frame.images)
    np.testing.assert_array_equal(step.matrices[0], frame.matrices)


def test_steady_crops_are_those_of_the_boxes_freed_from_jitter(four_clips: Path):
    clip = list_clips(four_clips).clips[0]
    boxes = read_boxes(clip)
    first, second = islice(read_crops(clip, 64, (CropRule(exact=True, steady=True),)), 2)
    np.testing.assert_allclose(256 * first.matrices[0], box_to_crop(boxes[0], exact=True))
    np.testing.assert_allclose(256 * second.matrices[0], box_to_crop(steady_box(boxes[0], boxes[1]), exact=True))


def test_a_box_outside_its_frame_is_damage_of_the_clip(tmp_path: Path):
    write_clip(tmp_path, "moved", 4)
    write_split(tmp_path, "easy", ["moved"])
    (clip,) = list_clips(tmp_path).clips
    boxes = np.load(tmp_path / "bboxes" / "moved.npy")
    boxes[2, :4] += 170
    np.save(tmp_path / "bboxes" / "moved.npy", boxes)
    with pytest.raises(ClipError, match=r"bboxes/moved\.npy: frame 2: the box lies outside the picture"):
        list(read_crops(clip, 64))


def test_boxes_are_the_first_four_columns(four_clips: Path):
    clip = list_clips(four_clips).clips[0]
    assert read_boxes(clip).shape == (9, 4)
    assert read_landmarks(clip).shape == (9, 98, 2)


def test_decoding_is_one_frame_ahead_and_no_more(four_clips: Path, monkeypatch: pytest.MonkeyPatch):
    decoded = []

    class CountingCapture:
        def __init__(self, *arguments):
            self.capture = capture(*arguments)

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def read(self):
            decoded.append(True)
            return self.capture.read()

    capture = cv2.VideoCapture
    monkeypatch.setattr(wflw_v.cv2, "VideoCapture", CountingCapture)
    frames = read_frames(Clip("a", "easy", four_clips, LENGTHS["a"]))
    next(frames)
    next(frames)
    assert len(decoded) == 3


def test_the_longest_clip_goes_to_the_slot_with_the_fewest_frames():
    # 7 -> slot 0, 5 -> slot 1, 4 -> slot 1 (9), 3 -> slot 0 (10), 2 -> slot 1 (11).
    assert plan_slots([2, 7, 3, 5, 4], 2) == [[1, 2], [3, 4, 0]]
    assert plan_slots([5, 5], 4) == [[0], [1]]


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_frame_of_every_clip_comes_once_and_in_order(four_clips: Path, slots: int, workers: int):
    clips = list_clips(four_clips).clips
    steps = list(stream_crops(clips, slots, 64, workers))
    assert frames_of(steps) == {index: list(range(clip.frames)) for index, clip in enumerate(clips)}
    assert sorted((end.clip, end.reason) for step in steps for end in step.ended) == [(i, None) for i in range(4)]
    for step in steps:
        assert step.slots.tolist() == sorted(set(step.slots.tolist()))
        assert len(step.images) == len(step.matrices) == len(step.slots)


def test_crops_do_not_depend_on_slots_and_workers(four_clips: Path):
    clips = list_clips(four_clips).clips
    expected = {(i, t): crop for i, clip in enumerate(clips) for t, crop in enumerate(read_crops(clip, 64))}
    for step in stream_crops(clips, 3, 64, workers=2):
        for row, (clip, frame) in enumerate(zip(step.clips, step.frames, strict=True)):
            np.testing.assert_array_equal(step.images[row], expected[clip, frame].images)
            np.testing.assert_array_equal(step.matrices[row], expected[clip, frame].matrices)


def test_the_next_clip_takes_the_place_of_one_that_ends_at_once(four_clips: Path):
    clips = list_clips(four_clips).clips
    steps = [step for step in stream_crops(clips, 2, 64) if step.slots.size]
    # 20 frames beside 9 + 6 + 1.
    assert [step.slots.tolist() for step in steps] == 16 * [[0, 1]] + 4 * [[0]]
    second = [clips[step.clips[1]].video_id for step in steps[:16]]
    assert second == 9 * ["c"] + 6 * ["b"] + ["d"]


def test_the_next_clip_takes_the_place_of_one_that_breaks_at_once(tmp_path: Path):
    make_pair(tmp_path)
    write_split(tmp_path, "easy", ["a", "b"])
    short_video(tmp_path, "a")
    listed = list_clips(tmp_path)
    steps = list(stream_crops(listed.clips, slots=1, size=64))
    # The third frame of the broken clip is held back until there is one behind it.
    assert [step.clips.tolist() for step in steps] == 2 * [[0]] + 6 * [[1]] + [[]]
    assert "ends after 3 of its 8 frames" in steps[2].ended[0].reason


def test_an_end_is_told_only_after_the_last_frame(four_clips: Path):
    clips = list_clips(four_clips).clips
    seen: dict[int, int] = dict.fromkeys(range(len(clips)), 0)
    for step in stream_crops(clips, 3, 64, workers=2):
        for end in step.ended:
            assert seen[end.clip] == clips[end.clip].frames
        for clip in step.clips.tolist():
            seen[clip] += 1


def test_a_clip_with_a_frame_that_the_decoder_repairs_is_not_evaluated(tmp_path: Path):
    sample = Path(__file__).parents[2] / "datasets" / "sample"
    for name in ("bboxes/hopper_easy.npy", "landmarks/hopper_easy.npy", "videos/hopper_easy.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes((sample / name).read_bytes())
    write_split(tmp_path, "easy", ["hopper_easy"])
    (clip,) = list_clips(tmp_path).clips
    clip.video_path.write_bytes(damage_one_frame(clip.video_path.read_bytes()))
    with pytest.raises(ClipError, match=r"videos/hopper_easy\.mp4: frame \d+ is damaged; get it again"):
        list(read_frames(clip))
