import sys

import numpy as np

from evaluation import landmark_figure
from utils.landmark_groups import LANDMARK_GROUPS


def test_every_number_and_every_group_stands_in_the_figure():
    angles = np.linspace(0, 2 * np.pi, 98, endpoint=False)
    figure = landmark_figure.landmark_figure(np.column_stack([np.cos(angles), np.sin(angles)]))
    (axes,) = figure.axes
    assert sorted(int(text.get_text()) for text in axes.texts) == list(range(98))
    (legend,) = figure.legends
    assert len(legend.texts) == len(LANDMARK_GROUPS)


def test_the_command_writes_a_picture_below_300_kilobytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["landmark_figure", str(tmp_path / "landmarks.png")])
    landmark_figure.main()
    assert 0 < (tmp_path / "landmarks.png").stat().st_size < 300_000
