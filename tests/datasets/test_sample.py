"""The sample that ships: complete, readable, small, attributed; and the geometry of the script that made it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.images import read_image
from datasets.make_sample import (
    CLIPS,
    CROPS,
    FRAME_SIZE,
    PORTRAITS,
    Crop,
    Portrait,
    detect,
    plane_to_frame,
    read_portraits,
    render_face,
    smooth_motion,
    warp_to_frame,
)
from datasets.wflw import SPLITS, crop_face, load_wflw_test
from utils.errors import InputError
from utils.geometry import landmark_box

SAMPLE = Path(__file__).parents[2] / "datasets" / "sample"
CLIP_IDS = [clip.name for clip in CLIPS]


def read_frames(clip: str) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(SAMPLE / "videos" / f"{clip}.mp4"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def test_the_sample_stays_within_three_mebibytes() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 3 * 2**20


def test_all_seven_splits_are_there_and_the_subsets_are_faces_of_test() -> None:
    wflw = load_wflw_test(SAMPLE)
    assert wflw.layout == "precropped"
    assert set(wflw.subsets) == set(SPLITS)
    assert len(wflw.subsets["test"]) == len(CROPS) >= 12
    # A face of a subset that was not found in test by its content would have been added to the faces.
    assert len(wflw.faces) == len(wflw.subsets["test"])
    for split in SPLITS[1:]:
        names = [wflw.faces[index].name for index in wflw.subsets[split]]
        assert names == [f"{crop.name}.jpg" for crop in CROPS if split.removeprefix("test_") in crop.attributes]
        assert names


def test_every_face_is_a_crop_with_its_landmarks_inside() -> None:
    for face in load_wflw_test(SAMPLE).faces:
        assert read_image(face.image_path).shape == (256, 256, 3)
        image, landmarks = crop_face(face)
        # Equal to the label: nothing had to be padded or clipped.
        assert np.array_equal(landmarks, face.landmarks / 256)
        assert image.std() > 10
        left, _, right, _ = landmark_box(landmarks[33:98])
        assert left < landmarks[[96, 97]].mean(axis=0)[0] < right
        # The numbering survived mirroring: the first eye is left of the second, the brows are above the mouth.
        assert landmarks[60:68].mean(axis=0)[0] < landmarks[68:76].mean(axis=0)[0]
        assert landmarks[33:51].mean(axis=0)[1] < landmarks[76:96].mean(axis=0)[1]


def test_the_splits_of_the_clips_name_every_clip_once() -> None:
    easy, hard = ((SAMPLE / "splits" / f"{split}_video_IDs.txt").read_text().split() for split in ("easy", "hard"))
    assert easy and hard
    assert sorted(easy + hard) == sorted(CLIP_IDS) == sorted(path.stem for path in SAMPLE.glob("videos/*.mp4"))
    assert len(CLIP_IDS) >= 3


@pytest.mark.parametrize("clip", CLIP_IDS)
def test_frames_boxes_and_landmarks_of_a_clip_agree(clip: str) -> None:
    frames = read_frames(clip)
    landmarks, boxes = (np.load(SAMPLE / folder / f"{clip}.npy") for folder in ("landmarks", "bboxes"))
    assert len(frames) >= 48
    assert {frame.shape for frame in frames} == {(FRAME_SIZE[1], FRAME_SIZE[0], 3)}
    assert landmarks.shape == (len(frames), 98, 2)
    assert boxes.shape == (len(frames), 5)
    assert landmarks.min() >= 0 and (landmarks <= FRAME_SIZE).all()
    tight = landmark_box(landmarks)
    longer = np.ptp(tight.reshape(-1, 2, 2), axis=1).max(axis=1)
    error = np.abs(boxes[:, :4] - tight) / longer[:, None]
    # A detector's box: never exact, never far.
    assert 0.005 < error.mean() < error.max() < 0.031
    # Smooth: no frame jumps by a fifth of the face, and none stands still.
    steps = np.linalg.norm(np.diff(landmarks.mean(axis=1), axis=0), axis=1) / longer[1:]
    assert steps.min() > 0 and steps.max() < 0.2


@pytest.mark.parametrize("clip", CLIP_IDS)
def test_the_landmarks_of_a_clip_move_as_the_picture_does(clip: str) -> None:
    frames, landmarks = read_frames(clip), np.load(SAMPLE / "landmarks" / f"{clip}.npy")
    first = cv2.cvtColor(frames[0], cv2.COLOR_BGR2GRAY)
    for index in (1, len(frames) // 2, len(frames) - 1):
        back, _ = cv2.findHomography(landmarks[index], landmarks[0])
        gray = cv2.cvtColor(frames[index], cv2.COLOR_BGR2GRAY)
        x1, y1, x2, y2 = landmark_box(landmarks[0]).astype(int)
        here = [image[y1:y2, x1:x2] for image in (first, cv2.warpPerspective(gray, back, FRAME_SIZE))]
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-5)
        _, left = cv2.findTransformECC(*here, np.eye(2, 3, dtype=np.float32), cv2.MOTION_TRANSLATION, criteria)
        assert np.hypot(*left[:, 2]) < 0.2


def test_the_readme_names_every_source_and_says_what_the_sample_is_not() -> None:
    readme = (SAMPLE / "README.md").read_text(encoding="utf-8")
    entries = json.loads(PORTRAITS.read_text(encoding="utf-8"))
    assert {crop.portrait for crop in CROPS} | {clip.portrait for clip in CLIPS} == set(entries)
    for name, entry in entries.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| {name} |"))
        assert Path(entry["file"]).name in row
        assert np.shape(entry["landmarks"]) == (98, 2)
    for phrase in ("not a benchmark", "public domain", "made by machine", "synthetic"):
        assert phrase in readme


def test_a_point_of_the_portrait_appears_where_the_homography_puts_it() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    point = np.array([118.0, 84.0])
    cv2.circle(image, (118, 84), 3, (255, 255, 255), -1)
    box = np.array([50.0, 50.0, 150.0, 150.0])
    to_frame = plane_to_frame(box, np.radians([10.0, -15.0, 20.0]), np.array([0.05, -0.1]), 1.2)
    weights = warp_to_frame(image, to_frame)[..., 0].astype(float)
    rows, columns = np.indices(weights.shape)
    centre = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    np.testing.assert_allclose(centre, cv2.perspectiveTransform(point[None, None], to_frame)[0, 0], atol=0.1)


def test_an_unmoved_face_is_centred_and_half_as_high_as_the_frame() -> None:
    to_frame = plane_to_frame(np.array([40.0, 20.0, 80.0, 100.0]), np.zeros(3), np.zeros(2), 1.0)
    corners = np.array([[[40.0, 20.0], [80.0, 100.0]]])
    np.testing.assert_allclose(cv2.perspectiveTransform(corners, to_frame)[0], [[130, 60], [190, 180]])


def test_motion_is_smooth_and_bounded() -> None:
    signals = smooth_motion(5, 2.0, np.random.default_rng(0))
    assert signals.shape[0] == 5
    assert np.abs(signals).max() <= 1
    # The slope of a sum of sines: at most the sum of amplitude times frequency.
    assert np.abs(np.diff(signals)).max() <= 2 * np.pi * 2 / signals.shape[1] * (0.75 + 0.25 * 2.3)


def test_a_detection_is_the_landmark_box_but_for_the_jitter() -> None:
    landmarks = np.random.default_rng(0).uniform(0, 200, (98, 2))
    detections = np.stack([detect(landmarks, np.random.default_rng(seed)) for seed in range(200)])
    np.testing.assert_allclose(detections[:, :4].mean(axis=0), landmark_box(landmarks), atol=1.0)
    assert ((detections[:, 4] >= 0.95) & (detections[:, 4] <= 1)).all()


def labelled_grey(name: str = "collins") -> Portrait:
    landmarks = np.array(json.loads(PORTRAITS.read_text(encoding="utf-8"))[name]["landmarks"])
    return Portrait(np.full((512, 512, 3), 128, np.uint8), landmarks)


def test_a_mirrored_crop_mirrors_the_landmarks_and_renumbers_them() -> None:
    _, landmarks = render_face(labelled_grey(), Crop("a", "collins"))
    _, mirrored = render_face(labelled_grey(), Crop("b", "collins", mirrored=True))
    # The chin and the pupils; box_to_crop rounds the box, which may shift the crop by a pixel or two.
    np.testing.assert_allclose(mirrored[[16, 96, 97], 0], 1 - landmarks[[16, 97, 96], 0], atol=0.02)
    np.testing.assert_allclose(mirrored[[16, 96, 97], 1], landmarks[[16, 97, 96], 1], atol=0.02)


def test_a_roll_turns_the_face_clockwise_by_its_angle() -> None:
    def eye_angle(crop: Crop) -> float:
        _, landmarks = render_face(labelled_grey(), crop)
        return float(np.degrees(np.arctan2(*(landmarks[72] - landmarks[60])[::-1])))

    upright = eye_angle(Crop("a", "collins"))
    assert eye_angle(Crop("b", "collins", roll=20)) - upright == pytest.approx(20, abs=1e-3)
    assert eye_angle(Crop("c", "collins", roll=20, mirrored=True)) + upright == pytest.approx(-20, abs=1e-3)


def test_another_file_than_the_labelled_one_is_refused_by_name(tmp_path: Path) -> None:
    for entry in json.loads(PORTRAITS.read_text(encoding="utf-8")).values():
        path = tmp_path / entry["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        _, encoded = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
        path.write_bytes(encoded.tobytes())
    with pytest.raises(InputError, match=r"astronaut\.png: is not the labelled portrait .*scikit-image"):
        read_portraits(tmp_path)
