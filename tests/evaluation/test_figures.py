from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from evaluation.figures import Panel, contact_sheet, error_curves
from utils.files import save_figure


def make_panel(number: int) -> Panel:
    generator = np.random.default_rng(number)
    return Panel(
        title=f"face {number}",
        image=generator.integers(0, 256, (64, 64, 3), dtype=np.uint8),
        predicted=generator.uniform(0, 1, (98, 2)),
        true=generator.uniform(0, 1, (98, 2)),
    )


def faces_of(figure: Figure) -> list:
    """The axes that show a face, from top left to bottom right."""
    return [axes for part in figure.subfigs for axes in part.axes if axes.images]


def test_a_curve_ends_at_the_share_of_faces_that_are_no_failures():
    figure = error_curves({"test": np.array([0.02, 0.05, 0.07, 0.3]), "test_blur": np.repeat([0.3, 0.01], 10)}, "title")
    whole, subset = figure.axes[0].lines
    assert (whole.get_xdata()[-1], whole.get_ydata()[-1]) == pytest.approx((10, 75))
    assert (subset.get_xdata()[-1], subset.get_ydata()[-1]) == pytest.approx((10, 50))


def test_the_legend_of_the_curves_gives_area_and_number_of_faces():
    figure = error_curves({"test": np.array([0.05, 0.05])}, "small.safetensors on WFLW")
    assert figure.axes[0].get_title() == "small.safetensors on WFLW"
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == ["test: AUC 0.500, 2 faces"]


def test_a_subset_of_few_faces_has_no_curve_and_is_named():
    few = {"test_makeup": np.array([]), "test_blur": np.full(19, 0.04), "test_largepose": np.full(20, 0.04)}
    figure = error_curves({"test": np.array([0.05]), **few}, "title")
    assert [line.get_label().split(":")[0] for line in figure.axes[0].lines] == ["test", "test_largepose"]
    assert figure.get_supxlabel() == "No curve for subsets of fewer than 20 faces: test_makeup (0), test_blur (19)"


def test_a_face_without_landmarks_is_within_no_error():
    (line,) = error_curves({"test": np.array([0.05, np.nan])}, "title").axes[0].lines
    assert line.get_ydata()[-1] == 50


@pytest.mark.parametrize("count", [1, 5, 7])
def test_a_contact_sheet_shows_every_face_under_its_heading(count: int):
    figure = contact_sheet({"Worst": [make_panel(i) for i in range(count)], "Median": [make_panel(9)]})
    assert [axes.get_title() for axes in faces_of(figure)] == [*(f"face {i}" for i in range(count)), "face 9"]
    assert [part.get_suptitle() for part in figure.subfigs[1:]] == ["Worst", "Median"]


def test_long_names_do_not_cover_each_other():
    name = "36_Football_americanfootball_ball_36_415.jpg"
    panels = [replace(make_panel(i), title=f"{name}\nNME {i} %") for i in range(3)]
    figure = contact_sheet({"Worst": panels})
    figure.draw_without_rendering()
    titles = [axes.title for axes in faces_of(figure)]
    assert [title.get_text().splitlines()[1] for title in titles] == ["NME 0 %", "NME 1 %", "NME 2 %"]
    assert all(title.get_text().splitlines()[0].endswith("_ball_36_415.jpg") for title in titles)
    boxes = [title.get_window_extent() for title in titles]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_true_and_predicted_landmarks_are_drawn_in_pixels_of_the_crop():
    panel = make_panel(0)
    (axes,) = faces_of(contact_sheet({"Worst": [panel]}))
    true, predicted = (artist for artist in axes.collections if isinstance(artist, PathCollection))
    np.testing.assert_allclose(true.get_offsets(), 64 * panel.true)
    np.testing.assert_allclose(predicted.get_offsets(), 64 * panel.predicted)
    assert not np.array_equal(true.get_facecolor(), predicted.get_facecolor())


def test_figures_are_written_as_png(tmp_path: Path):
    save_figure(contact_sheet({"Worst": [make_panel(0)], "Median": [make_panel(1)]}), tmp_path / "faces.png")
    with Image.open(tmp_path / "faces.png") as image:
        assert image.format == "PNG"
        assert image.height > image.width
