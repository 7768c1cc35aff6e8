import numpy as np
import pytest
import torch

from utils.metrics import (
    area_under_curve,
    error_curve,
    failure_rate,
    frame_shake,
    nme,
    normalised_allan_deviation,
    video_nme,
    video_nmj,
)

K = 98


def random_landmarks(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (count, K, 2))


def square_landmarks(frames: int, side: float) -> np.ndarray:
    """Landmarks on the diagonal of a square, the same in every frame."""
    diagonal = np.linspace(0, side, K)
    return np.tile(np.stack([diagonal, diagonal], axis=-1), (frames, 1, 1))


def test_nme_by_hand():
    true = np.zeros((2, K, 2))
    true[:, 60], true[:, 72] = (0, 0), (4, 3)
    predicted = true.copy()
    predicted[0, 10] += (3, 4)
    predicted[1] += (0, 1)
    np.testing.assert_allclose(nme(predicted, true), [5 / K / 5, 1 / 5], rtol=1e-12)


def test_nme_is_normalised_by_the_true_eye_corners_only():
    true = np.zeros((1, K, 2))
    true[:, 72] = (10, 0)
    predicted = true.copy()
    predicted[:, 72] = (20, 0)
    assert nme(predicted, true)[0] == pytest.approx(10 / K / 10)


def test_nme_is_invariant_to_scale_and_shift():
    predicted, true = random_landmarks(3, seed=1), random_landmarks(3, seed=2)
    np.testing.assert_allclose(nme(256 * predicted + 7, 256 * true + 7), nme(predicted, true), rtol=1e-9)


def test_nme_of_a_face_does_not_depend_on_the_others():
    predicted, true = random_landmarks(3, seed=1), random_landmarks(3, seed=2)
    assert nme(predicted, true)[1] == nme(predicted[1:2], true[1:2])[0]


@pytest.mark.parametrize("metric", [nme, video_nme, video_nmj])
def test_landmark_metrics_refuse_different_shapes(metric):
    with pytest.raises(ValueError, match="differ in shape"):
        metric(random_landmarks(3), random_landmarks(4))


@pytest.mark.parametrize("metric", [nme, video_nme, video_nmj])
def test_landmark_metrics_refuse_a_missing_axis(metric):
    with pytest.raises(ValueError, match=r"predicted landmarks must have shape \(N, K, 2\)"):
        metric(random_landmarks(3)[0], random_landmarks(3))


@pytest.mark.parametrize("metric", [nme, video_nme, video_nmj])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_landmark_metrics_name_the_face_that_is_not_finite(metric, value):
    predicted = random_landmarks(3)
    predicted[1, 5, 0] = value
    with pytest.raises(ValueError, match="predicted landmarks are not finite at index 1"):
        metric(predicted, random_landmarks(3))
    with pytest.raises(ValueError, match="true landmarks are not finite at index 1"):
        metric(random_landmarks(3), predicted)


def test_nme_refuses_coinciding_eye_corners():
    true = random_landmarks(2)
    true[1, 60] = true[1, 72]
    with pytest.raises(ValueError, match="corners coincide at index 1"):
        nme(true, true)


def test_nme_refuses_fewer_landmarks_than_the_eye_corners_need():
    with pytest.raises(ValueError, match="got 68 landmarks"):
        nme(np.zeros((1, 68, 2)), np.zeros((1, 68, 2)))


def test_failure_rate_counts_errors_above_the_threshold_only():
    assert failure_rate([0.05, 0.10, 0.11, 0.5]) == 0.5
    assert failure_rate([0.05, 0.10, 0.11, 0.5], threshold=0.2) == 0.25


def test_error_curve_counts_errors_up_to_and_including_x():
    errors, shares = error_curve([0.01, 0.02, 0.02, 0.5], threshold=0.04, step=0.01)
    np.testing.assert_allclose(errors, [0, 0.01, 0.02, 0.03, 0.04], atol=1e-15)
    assert shares.tolist() == [0, 0.25, 0.75, 0.75, 0.75]


def test_error_curve_has_1001_points_by_default():
    errors, shares = error_curve([0.03])
    assert errors.shape == shares.shape == (1001,)
    assert errors[-1] == 0.10


def test_area_under_curve_by_hand():
    # Simpson on the shares 0, 1/4, 3/4, 3/4, 3/4: (0 + 4/4 + 2 * 3/4 + 4 * 3/4 + 3/4) / 3 steps of 4.
    assert area_under_curve([0.01, 0.02, 0.02, 0.5], threshold=0.04, step=0.01) == pytest.approx(6.25 / 12)


def test_area_under_curve_is_one_without_error_and_zero_beyond_the_threshold():
    assert area_under_curve([0.0, 0.0]) == pytest.approx(1)
    assert area_under_curve([0.2, 0.3]) == 0


def test_area_under_curve_is_the_mean_of_what_the_errors_leave_of_the_threshold():
    errors = np.random.default_rng(0).uniform(0, 0.2, 200)
    assert area_under_curve(errors) == pytest.approx(np.mean(np.clip(1 - errors / 0.1, 0, 1)), abs=1e-3)


@pytest.mark.parametrize("metric", [failure_rate, area_under_curve, error_curve])
def test_metrics_over_faces_refuse_no_faces_nan_and_other_shapes(metric):
    with pytest.raises(ValueError, match="at least one face"):
        metric([])
    with pytest.raises(ValueError, match="at least one face"):
        metric([[0.1, 0.2]])
    with pytest.raises(ValueError, match="error 1 is NaN"):
        metric([0.1, np.nan])
    for threshold in (0, "0.1", None):
        with pytest.raises(ValueError, match="threshold must be"):
            metric([0.1], threshold=threshold)


@pytest.mark.parametrize("step", [0, -1e-4, 0.03, 0.3, np.nan, "0.1", None])
def test_error_curve_refuses_a_step_that_does_not_divide_the_threshold(step):
    with pytest.raises(ValueError, match="step must"):
        error_curve([0.1], threshold=0.1, step=step)


def test_video_nme_is_the_mean_over_frames_in_percent():
    predicted, true = random_landmarks(4, seed=1), random_landmarks(4, seed=2)
    assert video_nme(predicted, true) == pytest.approx(100 * nme(predicted, true).mean())


def test_video_nme_refuses_a_video_without_a_frame():
    with pytest.raises(ValueError, match="at least one frame"):
        video_nme(np.zeros((0, K, 2)), np.zeros((0, K, 2)))


def test_video_nmj_by_hand():
    # Face of 512 x 512: s = 2. The error vectors change by (3, 4) and back: jitter 100 * 5 / 2 in both steps.
    true = square_landmarks(frames=3, side=512)
    predicted = true.copy()
    predicted[1] += (3, 4)
    assert video_nmj(predicted, true) == pytest.approx(250)


def test_video_nmj_is_a_root_mean_square_over_points_and_frames():
    # One of K points jumps by 1 px once, so of 2 * K jitters one is 100 and its squares' mean is 100^2 / (2 * K).
    true = square_landmarks(frames=3, side=256)
    predicted = true.copy()
    predicted[2, 7] += (1, 0)
    assert video_nmj(predicted, true) == pytest.approx(100 / np.sqrt(2 * K))


def test_video_nmj_is_normalised_by_the_later_frame():
    true = square_landmarks(frames=2, side=256)
    true[1] *= 2
    predicted = true.copy()
    predicted[1] += (1, 0)
    assert video_nmj(predicted, true) == pytest.approx(50)


def test_video_nmj_of_a_constant_offset_is_zero():
    true = 300 * random_landmarks(5)
    assert video_nmj(true + np.array([2, -1]), true) == pytest.approx(0, abs=1e-9)


def test_video_nmj_is_invariant_to_scale():
    predicted, true = random_landmarks(5, seed=1), random_landmarks(5, seed=2)
    assert video_nmj(300 * predicted, 300 * true) == pytest.approx(video_nmj(predicted, true))


def test_video_nmj_needs_two_frames():
    with pytest.raises(ValueError, match="at least two frames, got 1"):
        video_nmj(random_landmarks(1), random_landmarks(1))


def test_video_nmj_names_the_frame_whose_landmarks_enclose_no_area():
    true = random_landmarks(3)
    true[2, :, 1] = 0.5
    with pytest.raises(ValueError, match="frame 2 enclose no area"):
        video_nmj(true, true)


def test_nad_by_hand():
    # Face of 256 x 256, errors 0, 0, 2, 4 px to the left: the means of 1 frame change by 0, 2, 2, so the variance is
    # (0 + 4 + 4) / (2 * 3) px^2; the one pair of means of 2 frames, 0 and 3, gives 9 / 2 px^2.
    true = square_landmarks(frames=4, side=256)
    predicted = true - np.array([[0, 0], [0, 0], [2, 0], [4, 0]])[:, None]
    assert normalised_allan_deviation(predicted, true, 1) == pytest.approx(100 * np.sqrt(8 / 6))
    assert normalised_allan_deviation(predicted, true, 2) == pytest.approx(100 * np.sqrt(9 / 2))


def test_nad_takes_every_window_of_m_frames():
    # Of 5 frames there are two pairs of means of 2: (1 + 3) / 2 - 0 = 2, and (3 + 5) / 2 - (0 + 1) / 2 = 3.5.
    true = square_landmarks(frames=5, side=256)
    predicted = true + np.array([[0, 0], [0, 0], [1, 0], [3, 0], [5, 0]])[:, None]
    assert normalised_allan_deviation(predicted, true, 2) == pytest.approx(100 * np.sqrt((4 + 3.5**2) / (2 * 2)))


def test_nad_is_a_root_mean_square_over_points_of_errors_normalised_by_their_own_frame():
    # Two frames, the second face twice as large; one of K points is off by 2 px there, so by 1 px of 256.
    true = square_landmarks(frames=2, side=256)
    true[1] *= 2
    predicted = true.copy()
    predicted[1, 7] += (0, 2)
    assert normalised_allan_deviation(predicted, true, 1) == pytest.approx(100 * np.sqrt(1 / (2 * K)))


def test_nad_of_one_frame_is_nmj_over_the_root_of_2_where_the_face_keeps_its_size():
    true = square_landmarks(frames=30, side=300)
    predicted = true + np.random.default_rng(0).normal(size=true.shape)
    assert normalised_allan_deviation(predicted, true, 1) == pytest.approx(video_nmj(predicted, true) / np.sqrt(2))


def test_nad_tells_jitter_from_drift():
    true = square_landmarks(frames=2000, side=256)
    noise = np.random.default_rng(0).normal(size=true.shape)
    jitter = [normalised_allan_deviation(true + noise, true, m) for m in (1, 4, 16)]
    assert jitter[0] / jitter[1] == pytest.approx(2, rel=0.05)
    assert jitter[1] / jitter[2] == pytest.approx(2, rel=0.05)
    drift = 0.01 * np.arange(2000)[:, None, None] * np.array([1, 0])
    assert normalised_allan_deviation(true + drift, true, 16) == pytest.approx(
        16 * normalised_allan_deviation(true + drift, true, 1)
    )


def test_nad_is_not_known_of_a_video_shorter_than_two_windows():
    true = square_landmarks(frames=7, side=256)
    assert np.isnan(normalised_allan_deviation(true, true, 4))
    assert normalised_allan_deviation(true, true, 3) == normalised_allan_deviation(true, true, np.int64(3)) == 0
    for window in (0, 2.0, "2", None):
        with pytest.raises(ValueError, match="window must be"):
            normalised_allan_deviation(true, true, window)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda points: points * 1e300, "exceed"),
        (lambda points: points + 1j, "real numbers"),
        (lambda points: points > 0, "real numbers"),
        (lambda points: torch.tensor(points, requires_grad=True), "cannot be converted"),
        (lambda points: np.ma.masked_greater(points, 0.5), "masked"),
        (lambda points: points.astype("datetime64[s]"), "real numbers"),
    ],
)
def test_landmarks_that_are_no_coordinates_are_refused(spoil, message):
    points = random_landmarks(4, seed=1)
    for metric in (nme, video_nmj, lambda first, second: normalised_allan_deviation(first, second, 1)):
        with pytest.raises(ValueError, match=message):
            metric(points, spoil(points))


def test_errors_and_thresholds_out_of_range_are_refused():
    with pytest.raises(ValueError, match="negative"):
        area_under_curve([-0.1])
    with pytest.raises(ValueError, match="finite"):
        failure_rate([0.1], np.inf)
    with pytest.raises(ValueError, match="intervals"):
        error_curve([0.1], step=1e-12)


def test_shake_is_zero_at_constant_speed_and_the_second_difference_otherwise():
    start = square_landmarks(1, 50)[0]
    assert frame_shake([start, start + 3, start + 6]) == pytest.approx(0, abs=1e-12)
    # A jump of (3, 4) pixels in the last frame, on a box of 50 x 50 pixels.
    assert frame_shake([start, start, start + np.array([3, 4])]) == pytest.approx(10)


@pytest.mark.parametrize("landmarks", [np.zeros((2, 5, 2)), np.zeros((3, 5, 3)), np.zeros((3, 0, 2)), 5, "abc", None])
def test_shake_needs_three_frames_of_landmarks(landmarks):
    with pytest.raises(ValueError, match="landmarks"):
        frame_shake(landmarks)


def test_the_window_of_the_allan_deviation_may_be_any_integer_of_numpy():
    predicted, true = random_landmarks(6), random_landmarks(6, seed=1)
    expected = normalised_allan_deviation(predicted, true, 2)
    assert normalised_allan_deviation(predicted, true, np.uint8(2)) == expected
