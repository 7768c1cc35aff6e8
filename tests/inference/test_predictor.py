import cv2
import numpy as np
import pytest
import torch
from small_networks import small_model

from evaluation.filters import SavitzkyGolay
from inference import FaceLandmarker
from inference.face_tracker import FaceTracker
from inference.flip import mean_with_mirrored
from inference.landmark_tracker import LandmarkTracker, TrackingConfig
from inference.predictor import LandmarkPredictor
from inference.streams import Streams
from utils.crops import CropRule, crop_box
from utils.errors import OptionError
from utils.geometry import transform_points
from utils.images import to_network_input
from utils.pictures import to_bgr

GENERATOR = np.random.default_rng(0)
PICTURE = cv2.resize(GENERATOR.integers(0, 256, (12, 16, 3), dtype=np.uint8), (160, 120))
BOXES = np.array([[20.3, 15.6, 80.9, 90.2], [70, 30, 140, 100]])


def test_the_landmarks_are_those_of_the_network_on_the_crop_taken_back_to_the_frame():
    model = small_model()
    (found,) = LandmarkPredictor(model)(PICTURE, BOXES[:1])
    crop, matrix = crop_box(PICTURE[..., ::-1], BOXES[0], 64, exact=True)
    with torch.inference_mode():
        output = model(to_network_input(crop)[None].to(memory_format=torch.channels_last))
    zoom = 1 / (1.2 * 74.6)
    assert matrix[0, 0] == pytest.approx(zoom)
    corner = np.array([(20.3 + 80.9) / 2, (15.6 + 90.2) / 2]) - 1.2 * 74.6 / 2
    np.testing.assert_allclose(found.landmarks, corner + output.keypoints[0].numpy() / zoom, atol=1e-3)
    np.testing.assert_allclose(found.uncertainty, output.uncertainty[0].numpy() / zoom, rtol=1e-4)
    np.testing.assert_array_equal(found.box, BOXES[0])
    # The final evaluation is counted too.
    assert found.evaluations == output.solution.evals[0] + (output.solution.f_z is None)
    assert found.residual == pytest.approx(float(output.solution.residual[0]), rel=1e-3)


def test_a_face_does_not_depend_on_the_others_or_on_the_order_of_the_boxes():
    predictor = LandmarkPredictor(small_model())
    together = predictor(PICTURE, BOXES[::-1])
    for box, found in zip(BOXES[::-1], together, strict=True):
        np.testing.assert_allclose(predictor(PICTURE, [box])[0].landmarks, found.landmarks, atol=1e-3)


def test_rgb_and_bgr_pictures_give_the_same():
    model = small_model()
    bgr, rgb = (LandmarkPredictor(model, colour=colour) for colour in ("bgr", "rgb"))
    np.testing.assert_array_equal(bgr(PICTURE, BOXES)[0].landmarks, rgb(PICTURE[..., ::-1], BOXES)[0].landmarks)
    assert not np.array_equal(bgr(PICTURE, BOXES)[0].landmarks, rgb(PICTURE, BOXES)[0].landmarks)


def test_an_exact_crop_follows_a_fraction_of_a_pixel_and_a_rounded_one_does_not():
    model = small_model()
    moved = BOXES[:1] + 0.15
    for exact in (True, False):
        predictor = LandmarkPredictor(model, crop=CropRule(exact=exact))
        same = np.array_equal(predictor(PICTURE, BOXES[:1])[0].landmarks, predictor(PICTURE, moved)[0].landmarks)
        assert same != exact


def test_an_explicit_network_has_no_residual():
    (found,) = LandmarkPredictor(small_model(mode="explicit"))(PICTURE, BOXES[:1])
    assert np.isnan(found.residual)
    assert found.evaluations == 2


def test_flip_is_the_mean_with_the_mirrored_crop():
    model = small_model(landmarks=98)
    (found,) = LandmarkPredictor(model, flip=True)(PICTURE, BOXES[:1])
    (plain,) = LandmarkPredictor(model)(PICTURE, BOXES[:1])
    crop, matrix = crop_box(PICTURE[..., ::-1], BOXES[0], 64, exact=True)
    with torch.inference_mode():
        first, second = (model(to_network_input(view.copy())[None]).keypoints for view in (crop, crop[:, ::-1]))
    mean = mean_with_mirrored(first[0].double().numpy(), second[0].double().numpy(), 64)
    np.testing.assert_allclose(found.landmarks, transform_points(mean, matrix, inverse=True), atol=1e-3)
    assert np.abs(found.landmarks - plain.landmarks).max() > 0.1
    np.testing.assert_array_equal(found.uncertainty, plain.uncertainty)


def test_no_boxes_are_no_faces():
    assert LandmarkPredictor(small_model())(PICTURE, []) == []


@pytest.mark.parametrize(
    ("picture", "boxes", "message"),
    [
        (PICTURE, BOXES[0], r"boxes must have shape \(N, 4\)"),
        (PICTURE, [[30, 30, 30, 60]], "no area"),
        (PICTURE, [[np.nan, 30, 40, 60]], "not finite"),
        (PICTURE[..., 0], BOXES, "a picture must be an array"),
        (PICTURE / 255, BOXES, "a picture must be an array"),
    ],
)
def test_bad_input_is_one_clear_error(picture, boxes, message):
    with pytest.raises(ValueError, match=message):
        LandmarkPredictor(small_model())(picture, boxes)


def test_an_unknown_order_of_channels_is_an_error():
    with pytest.raises(ValueError, match="colour must be one of bgr, rgb"):
        LandmarkPredictor(small_model(), colour="gbr")(PICTURE, BOXES)


@pytest.mark.parametrize("picture", [None, "a", [1], b"x", PICTURE[:0], PICTURE > 9, PICTURE.transpose(2, 0, 1)])
def test_what_is_no_picture_is_refused_by_every_tracker(picture):
    model = small_model()
    trackers = (
        FaceTracker(model).step,
        lambda frame: LandmarkTracker(model).step(frame, BOXES[0]),
        lambda frame: LandmarkPredictor(model)(frame, BOXES),
    )
    for step in trackers:
        with pytest.raises(ValueError, match="a picture must be an array"):
            step(picture)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: LandmarkPredictor(None), "model must be a LDEQ"),
        (lambda model: LandmarkTracker("weights.safetensors"), "model must be a LDEQ"),
        (lambda model: LandmarkTracker(model, "steady"), "config must be a TrackingConfig"),
        (lambda model: LandmarkPredictor(model, engine="tensorrt"), "engine must be one of"),
        (lambda model: LandmarkPredictor(model, engine=None), "engine must be one of"),
        (lambda model: LandmarkPredictor(model, precision="fp16"), "precision must be one of"),
        (lambda model: LandmarkPredictor(model, colour="BGR"), "colour must be one of"),
        (lambda model: LandmarkPredictor(model, crop="exact"), "crop must be a CropRule"),
        (lambda model: LandmarkPredictor(model, flip="x"), "flip must be true or false"),
        (lambda model: FaceTracker(model, rules="x"), "rules must be a FollowingRules or None"),
        (lambda model: FaceTracker(model, detector="x"), "detector must have a method detect"),
        (lambda model: TrackingConfig(rwr="steady"), "rwr must be a RwRConfig or None"),
        (lambda model: CropRule(exact="false"), "exact of the crop rule must be true or false"),
        (lambda model: Streams(model, None, batch_size=0), "batch_size must be at least 1"),
        (lambda model: Streams(model, None, solve_first_frame="no"), "solve_first_frame must be true or false"),
        (lambda model: SavitzkyGolay(3, 1, "x"), "causal must be true or false"),
        (lambda model: FaceLandmarker(colour="RGB"), "colour must be one of bgr, rgb"),
        (lambda model: FaceLandmarker(tracking="steady"), "tracking must be a TrackingConfig or None"),
        (lambda model: FaceLandmarker(device=[]), "device must be a str"),
        (lambda model: FaceLandmarker(device=10**5000), "device must be a str, not this int"),
        (lambda model: to_bgr(PICTURE, "RGB"), "colour must be one of bgr, rgb"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(make, message):
    with pytest.raises(OptionError, match=message):
        make(small_model())
