"""The figures and overlays of the video evaluation."""

import numpy as np
import pytest
from four_clips import clip_of

from datasets.wflw_v import read_landmarks
from evaluation.comparison import MethodScore
from evaluation.video_figures import clip_figure, comparison_figure, convergence_figure, draw_overlay, unbeaten
from utils.drawing import PART_COLOURS, bgr
from utils.metrics import video_nme, video_nmj


def test_an_overlay_shows_box_contours_and_true_landmarks_where_they_are():
    frame = np.full((240, 320, 3), 100, np.uint8)
    angles = np.linspace(0, 2 * np.pi, 98, endpoint=False)
    predicted = np.array([200, 140]) + 60 * np.column_stack([np.cos(angles), np.sin(angles)])
    shift = np.array([0, 20])
    picture = draw_overlay(frame, predicted, predicted + shift, np.array([100, 60, 300, 220]), 0.03, None)
    drawn = (picture != frame).any(axis=2)
    assert tuple(picture[60, 150]) == (255, 255, 255)
    # The face contour runs through its points.
    across, down = predicted[16].round().astype(int)
    towards = np.subtract(bgr(PART_COLOURS["face"]), 100)
    assert (picture[down, across].astype(int) - 100) @ towards > 0.3 * towards @ towards
    ring = (predicted[24] + shift).round().astype(int)
    assert drawn[ring[1] - 4 : ring[1] + 5, ring[0] - 4 : ring[0] + 5].any()
    assert (frame == 100).all()


def test_the_curves_of_a_clip_are_its_errors_and_its_jitter(clips):
    true = read_landmarks(clip_of(clips, "b"))
    predicted = true + np.random.default_rng(0).normal(size=true.shape)
    above, below = clip_figure("b", {"RwR": predicted, "no RwR": true}, true).axes
    assert above.lines[0].get_ydata().mean() == pytest.approx(video_nme(predicted, true))
    assert np.sqrt(np.mean(below.lines[0].get_ydata() ** 2)) == pytest.approx(video_nmj(predicted, true))
    assert below.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert above.lines[1].get_ydata().tolist() == 6 * [0]


def test_what_coincides_is_drawn_once_under_both_names(clips):
    true = read_landmarks(clip_of(clips, "b"))
    predicted = {"RwR": true + 1, "no RwR": true + 1.0001, "filter": true + 2}
    above, below = clip_figure("b", predicted, true).axes
    for axes in (above, below):
        assert [line.get_label().split(":")[0] for line in axes.lines] == ["RwR \u2248 no RwR", "filter"]


def test_the_convergence_plot_shows_the_median_over_frames_the_tolerance_and_where_rwr_ends():
    traces = {"cold": np.array([[1, 2, 9], [0.1, 0.5, 0.2]])}
    (axes,) = convergence_figure(traces, "relative", "title", tolerance=0.25, rwr_evaluations=2).axes
    curve, end, tolerance = axes.lines
    assert curve.get_xdata().tolist() == [1, 2]
    assert curve.get_ydata().tolist() == [2, 0.2]
    assert list(end.get_xdata()) == [2, 2]
    assert list(tolerance.get_ydata()) == [0.25, 0.25]


def test_methods_whose_jitter_differs_have_a_curve_each(clips):
    true = read_landmarks(clip_of(clips, "b"))
    shaken = true + 1 + 0.2 * (np.arange(len(true)) % 2)[:, None, None]
    above, below = clip_figure("b", {"RwR": true + 1, "no RwR": shaken}, true).axes
    assert [len(axes.lines) for axes in (above, below)] == [2, 2]


def test_the_curve_of_a_filter_leaves_out_settings_that_another_beats():
    curve = np.array([[3.0, 80], [2.0, 120], [2.5, 130], [2.1, 90]])
    np.testing.assert_array_equal(unbeaten(curve), [[2.0, 120], [2.1, 90], [3.0, 80]])


def test_the_comparison_plot_has_a_labelled_point_a_method_and_a_curve_a_filter_on_every_crop():
    names = ("RwR", "no RwR", "no RwR, One-Euro (min_cutoff 1, beta 0)")
    scores = [
        MethodScore(name, crop, nme, nmj, nmj, nmj, nmj, nmj, 0.0, 2.0, 1.0)
        for crop in ("original", "steady")
        for name, nme, nmj in zip(names, (2, 2, 2.001), (90, 120, 110), strict=True)
    ]
    curve = np.array([[2, 120], [2.1, 80]])
    figure = comparison_figure(scores, {("original", "One-Euro"): curve}, "title")
    for axes, crop in zip(figure.axes, ("original", "steady"), strict=True):
        assert axes.get_title() == f"{crop} crops"
        assert [points.get_offsets().tolist() for points in axes.collections] == [[[2, 90]], [[2, 120]], [[2.001, 110]]]
        assert {text.get_text() for text in axes.texts} == {"RwR", "no RwR", "One-Euro"}
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xydata(), curve)
    # A difference of a thousandth is not to look like one.
    assert np.diff(figure.axes[0].get_xlim()) >= 0.2
