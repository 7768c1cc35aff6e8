import sys

import numpy as np
import pytest
import torch
from small_networks import random_images, small_model

from export import export, largest_difference, main
from models import save_checkpoint
from utils.command_line import run


@pytest.mark.filterwarnings("ignore")
def test_the_export_computes_what_the_network_does_for_any_batch(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = small_model()
    backbone, cell = export(model, tmp_path)
    assert largest_difference(model, backbone, cell) < 1e-5
    images = random_images(3)
    with torch.inference_mode():
        embedded = model.embed(images)
        expected = model.cell(model.initial_state(embedded), embedded)
        keypoints, uncertainty, _ = model.read_out(expected)
    (found,) = onnxruntime.InferenceSession(backbone).run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, embedded, atol=1e-4)
    z = np.zeros(expected.shape, np.float32)
    outputs = onnxruntime.InferenceSession(cell).run(None, {"z": z, "embedded": found})
    for output, value in zip(outputs, (expected, keypoints, uncertainty), strict=True):
        np.testing.assert_allclose(output, value, atol=1e-4)


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    save_checkpoint(small_model(), tmp_path / "weights.safetensors")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(sys, "argv", ["export.py", "--landmark_model_weights", str(tmp_path / "weights.safetensors")])
    assert run(main) == 2
    assert "onnxscript is missing; pip install" in capsys.readouterr().err
