"""Filters against hand-computed values and their defining properties; lag and tuning on motions that are known."""

import math

import numpy as np
import pytest

from evaluation.comparison import (
    NME_TOLERANCE,
    LabelledTrack,
    MethodScore,
    filter_curve,
    format_table,
    motion_lag,
    score_tracks,
    shift_errors,
    tune_filter,
)
from evaluation.filters import ExponentialMovingAverage, Filter, OneEuro, SavitzkyGolay, filter_grids
from utils.metrics import normalised_allan_deviation, video_nme, video_nmj

FILTERS: list[Filter] = [
    ExponentialMovingAverage(0.4),
    OneEuro(0.1, 2),
    SavitzkyGolay(5, 2, causal=True),
    SavitzkyGolay(5, 2, causal=False),
]
CAUSAL = FILTERS[:3]


def as_landmarks(values: list[float]) -> np.ndarray:
    """The values as the x of one point, (T, 1, 2)."""
    return np.stack([values, np.zeros(len(values))], axis=-1)[:, None]


def first_x(landmarks: np.ndarray) -> list[float]:
    return landmarks[:, 0, 0].tolist()


def random_landmarks(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, 98, 2))


def moving_face(frames: int, seed: int = 0) -> np.ndarray:
    """98 true landmarks of a face of about 200 pixels that moves smoothly, (T, 98, 2)."""
    face = np.random.default_rng(seed).uniform(100, 300, (98, 2))
    face[60], face[72] = (150, 180), (250, 180)
    t = np.arange(frames)[:, None, None]
    return face + 20 * np.sin(t / 8 + np.array([0, 1]))


def test_the_moving_average_mixes_the_new_value_with_the_last_result():
    smooth = ExponentialMovingAverage(0.25)(as_landmarks([4, 8, 0]))
    assert first_x(smooth) == pytest.approx([4, 5, 3.75])


def test_one_euro_smooths_the_speed_and_opens_its_cutoff_with_it():
    # Of a cutoff c the weight is 1 / (1 + 1 / (2 pi c)): 1/2 at c = 1 / (2 pi), 3/4 at three times that.
    unit = 1 / (2 * math.pi)
    smooth = OneEuro(min_cutoff=unit, beta=unit, speed_cutoff=unit)(as_landmarks([0, 4, 1]))
    # Frame 1: speed 4 / 2 = 2, cutoff 1 + 2 = 3 units, weight 3/4, value 3.
    # Frame 2: difference 1 - 3 = -2, speed (2 - 2) / 2 = 0, cutoff 1 unit, weight 1/2, value 2.
    assert first_x(smooth) == pytest.approx([0, 3, 2])


def test_a_centred_savitzky_golay_of_order_0_is_the_mean_of_its_window():
    smooth = SavitzkyGolay(3, 0, causal=False)(as_landmarks([0, 3, 6, 0, 3]))
    assert first_x(smooth)[1:-1] == pytest.approx([3, 3, 3])


def test_a_causal_savitzky_golay_takes_the_end_of_the_line_through_its_window():
    # The line of least squares through 0, 3, 0 is at 1 throughout, that through 3, 0, 3 at 2. The values 0, 3, 6 are
    # on a line already, and so are any two.
    smooth = SavitzkyGolay(3, 1, causal=True)(as_landmarks([0, 3, 0, 3, 6]))
    assert first_x(smooth) == pytest.approx([0, 3, 1, 2, 6], abs=1e-12)


@pytest.mark.parametrize("smooth", FILTERS[2:], ids=lambda smooth: smooth.name)
def test_savitzky_golay_leaves_a_polynomial_of_its_order_as_it_is(smooth: Filter):
    t = np.arange(20.0)
    landmarks = as_landmarks((3 + 2 * t - 0.1 * t**2).tolist())
    np.testing.assert_allclose(smooth(landmarks), landmarks, atol=1e-9)


@pytest.mark.parametrize("smooth", CAUSAL, ids=lambda smooth: smooth.name)
def test_a_causal_filter_does_not_look_ahead(smooth: Filter):
    landmarks = random_landmarks(20)
    changed = landmarks.copy()
    changed[12:] += 5
    np.testing.assert_array_equal(smooth(landmarks)[:12], smooth(changed)[:12])


def test_the_centred_form_looks_ahead_by_half_its_window():
    landmarks = random_landmarks(20)
    changed = landmarks.copy()
    changed[12:] += 5
    smooth = SavitzkyGolay(5, 2, causal=False)
    differs = (smooth(landmarks) != smooth(changed)).any(axis=(1, 2))
    assert np.flatnonzero(differs)[0] == 10


@pytest.mark.parametrize("smooth", FILTERS, ids=lambda smooth: smooth.name)
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 30])
def test_a_face_at_rest_stays_where_it_is_in_clips_of_any_length(smooth: Filter, frames: int):
    landmarks = np.broadcast_to(random_landmarks(1), (frames, 98, 2))
    np.testing.assert_allclose(smooth(landmarks), landmarks, atol=1e-9)


@pytest.mark.parametrize("smooth", FILTERS, ids=lambda smooth: smooth.name)
def test_a_filter_reduces_noise_and_leaves_its_argument_alone(smooth: Filter):
    noise = random_landmarks(200)
    copy = noise.copy()
    assert np.diff(smooth(noise), axis=0).std() < 0.9 * np.diff(noise, axis=0).std()
    np.testing.assert_array_equal(noise, copy)


@pytest.mark.parametrize("name", filter_grids())
def test_every_grid_holds_one_filter_and_a_setting_that_changes_nothing(name: str):
    grid = filter_grids()[name]
    assert {smooth.name for smooth in grid} == {name}
    assert len({smooth.setting for smooth in grid}) == len(grid)
    landmarks = random_landmarks(12)
    assert any(np.allclose(smooth(landmarks), landmarks, atol=1e-9) for smooth in grid)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExponentialMovingAverage(0),
        lambda: ExponentialMovingAverage(1.5),
        lambda: OneEuro(0, 1),
        lambda: OneEuro(1, -1),
        lambda: SavitzkyGolay(3, 3, causal=True),
        lambda: SavitzkyGolay(4, 1, causal=False),
    ],
)
def test_a_parameter_out_of_range_is_an_error(make):
    with pytest.raises(ValueError, match=r"must|negative"):
        make()


@pytest.mark.parametrize("late", [-2, 0, 1, 3])
def test_the_lag_of_a_delayed_track_is_its_delay(late: int):
    true = moving_face(80)
    predicted = np.roll(true, late, axis=0)
    lag = motion_lag(shift_errors(predicted[5:-5], true[5:-5]))
    assert lag == pytest.approx(late, abs=0.02)


def test_the_lag_is_found_between_frames():
    true = moving_face(80)
    predicted = 0.5 * (true + np.roll(true, 1, axis=0))
    assert motion_lag(shift_errors(predicted[5:-5], true[5:-5])) == pytest.approx(0.5, abs=0.02)


def test_a_constant_bias_changes_no_lag():
    true = moving_face(60)
    predicted = true + random_landmarks(1) * 30
    np.testing.assert_allclose(shift_errors(predicted, true), shift_errors(true, true), atol=1e-12)


def test_the_lag_is_not_known_of_a_clip_too_short_or_a_shift_too_great():
    assert math.isnan(motion_lag(shift_errors(moving_face(9), moving_face(9))))
    assert math.isnan(motion_lag([3, 2, 1]))


def test_a_score_is_the_mean_over_clips_and_the_median_of_their_jitter():
    tracks = [LabelledTrack(moving_face(30) + random_landmarks(30, seed), moving_face(30), 200) for seed in range(3)]
    score = score_tracks(iter(tracks))
    nmjs = [video_nmj(track.predicted, track.true) for track in tracks]
    assert score["nmj"] == pytest.approx(np.mean(nmjs))
    assert score["median_nmj"] == pytest.approx(sorted(nmjs)[1])
    assert score["nme_percent"] == pytest.approx(np.mean([video_nme(track.predicted, track.true) for track in tracks]))
    assert score["lag_frames"] == pytest.approx(0, abs=0.05)


def test_a_filter_sees_landmarks_in_units_of_the_face():
    small = LabelledTrack(moving_face(20), moving_face(20), 200)
    large = LabelledTrack(3 * small.predicted, 3 * small.true, 600)
    smooth = OneEuro(0.05, 20)
    np.testing.assert_allclose(large.filtered(smooth).predicted, 3 * small.filtered(smooth).predicted)


def test_tuning_takes_the_steadiest_setting_that_keeps_the_error():
    tracks = [LabelledTrack(moving_face(60) + random_landmarks(60, seed), moving_face(60), 200) for seed in range(2)]
    settings = [ExponentialMovingAverage(alpha) for alpha in (0.02, 0.3, 0.9, 1.0)]
    best = tune_filter(settings, iter(tracks)).best

    def mean(measure, smooth: Filter) -> float:
        return np.mean([measure(track.filtered(smooth).predicted, track.true) for track in tracks])

    limit = (1 + NME_TOLERANCE) * mean(video_nme, ExponentialMovingAverage(1))
    allowed = [smooth for smooth in settings if mean(video_nme, smooth) <= limit]
    assert 1 < len(allowed) < len(settings)
    assert best == min(allowed, key=lambda smooth: mean(video_nmj, smooth))


def test_tuning_takes_the_least_error_where_every_setting_raises_it():
    tracks = [LabelledTrack(moving_face(60), moving_face(60) + 1, 200)]
    settings = [ExponentialMovingAverage(alpha) for alpha in (0.1, 0.5)]
    assert tune_filter(settings, iter(tracks)).best.alpha == 0.5


def test_the_frontier_of_a_filter_has_the_settings_that_no_other_beats_in_both():
    tracks = [LabelledTrack(moving_face(60) + random_landmarks(60, seed), moving_face(60), 200) for seed in range(2)]
    settings = [ExponentialMovingAverage(alpha) for alpha in (0.02, 0.3, 0.9, 1.0)]
    frontier = tune_filter(settings, iter(tracks)).frontier
    curve = filter_curve(frontier, iter(tracks))
    assert (np.diff(curve[:, 0]) > 0).all()
    assert (np.diff(curve[:, 1]) < 0).all()
    for nme, nmj in filter_curve(settings, iter(tracks)):
        assert ((curve[:, 0] <= nme) & (curve[:, 1] <= nmj)).any()


def test_the_curve_of_a_filter_is_the_mean_over_clips_of_each_setting():
    tracks = [LabelledTrack(moving_face(20) + random_landmarks(20, seed), moving_face(20), 200) for seed in range(2)]
    smooth = ExponentialMovingAverage(0.5)
    expected = np.mean(
        [
            [measure(track.filtered(smooth).predicted, track.true) for measure in (video_nme, video_nmj)]
            for track in tracks
        ],
        axis=0,
    )
    np.testing.assert_allclose(filter_curve([smooth], iter(tracks)), [expected])


def test_nad_is_the_mean_over_the_clips_that_are_long_enough():
    tracks = [LabelledTrack(moving_face(n) + random_landmarks(n, n), moving_face(n), 200) for n in (6, 10)]
    score = score_tracks(iter(tracks))
    nads = {m: [normalised_allan_deviation(track.predicted, track.true, m) for track in tracks] for m in (1, 4)}
    assert score["nad_1"] == pytest.approx(np.mean(nads[1]))
    assert score["nad_4"] == pytest.approx(nads[4][1])
    assert math.isnan(score["nad_16"])


def test_the_table_has_a_line_a_method_and_a_dash_for_what_is_not_known():
    lines = format_table(
        [
            MethodScore("RwR", "original", 1.5, 100.0, 90.0, 70.0, 40.0, 20.0, 0.125, 2.0, 12.5),
            MethodScore("no RwR", "steady", 1.25, 120.0, 95.0, 80.0, 50.0, math.nan, math.nan, 11.0, 40.0),
        ]
    ).splitlines()
    assert lines[1].split() == [
        "RwR",
        "original",
        "1.500",
        "100.00",
        "90.00",
        "70.00",
        "40.00",
        "20.00",
        "0.12",
        "2.00",
        "12.50",
    ]
    assert lines[2].split() == [
        "no",
        "RwR",
        "steady",
        "1.250",
        "120.00",
        "95.00",
        "80.00",
        "50.00",
        "-",
        "-",
        "11.00",
        "40.00",
    ]
