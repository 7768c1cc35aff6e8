"""The engines compute the same; the export is found only where it is of exactly these weights."""

import copy
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import random_images, small_model

from inference.engines import FACES_AT_ONCE, OnnxEngine, TorchEngine, fold_batch_norm, open_engine
from inference.exports import CHECKSUM_KEY, DIGEST_KEY, export_of, export_paths, file_checksum
from inference.network import Network
from inference.onnx_export import export_network, largest_difference, to_onnx
from inference.options import SHIPPED_WEIGHTS
from inference.streams import Streams
from models import LDEQConfig, load_checkpoint, save_checkpoint
from models.checkpoints import weights_digest
from models.rwr import VARIANTS
from solvers import AndersonConfig, FixedPointConfig
from utils.errors import CheckpointError, OptionError

WHOLE_FRAME = np.eye(2, 3)[None]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A checkpoint with its export beside it."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(small_model(solver=AndersonConfig(max_evals=12, tol=1e-4)), path, torch.float16)
    export_network(load_checkpoint(path), export_paths(path))
    return path


def test_batch_norms_right_after_convolutions_are_folded_and_those_after_activations_stay():
    model = small_model(backbone="hrnet_mini")
    folded = fold_batch_norm(copy.deepcopy(model.backbone))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    images = random_images(2)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), model.backbone(images), atol=1e-4, rtol=1e-4)
    stem = fold_batch_norm(copy.deepcopy(small_model().backbone))
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in stem.modules()) == 3


@pytest.mark.parametrize("options", [{}, {"backbone": "hrnet_mini"}, {"mode": "explicit", "explicit_batch_norm": True}])
def test_the_engine_of_torch_computes_the_network_and_leaves_it_as_it_was(options):
    model = small_model(**options)
    before = copy.deepcopy(model.state_dict())
    engine, images = TorchEngine(model), random_images(2)
    with torch.inference_mode():
        embedded = model.embed(images)
        torch.testing.assert_close(engine.embed(images), embedded, atol=1e-4, rtol=1e-4)
        z = torch.rand_like(model.initial_state(embedded))
        torch.testing.assert_close(engine.cell(z, embedded), model.cell(z, embedded), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_export_computes_what_the_network_does_for_any_batch(exported):
    model, engine = load_checkpoint(exported), OnnxEngine(export_of(exported))
    assert largest_difference(model, export_of(exported)) < 1e-5
    for batch in (1, 3, FACES_AT_ONCE + 3):
        # Whatever the memory format is.
        images = random_images(batch).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            embedded = model.embed(images)
            torch.testing.assert_close(engine.embed(images), embedded, atol=1e-4, rtol=1e-4)
            z = torch.rand(model.initial_state(embedded).shape, generator=torch.Generator().manual_seed(batch))
            given = z.clone()
            difference = (engine.cell(z, embedded) - model.cell(z, embedded)).abs()
            # Where the softmax of these random weights is steep, rounding shows; elsewhere it does not.
            assert difference.max() < 1e-3
            assert difference.mean() < 2e-6
            assert torch.equal(z, given)


@pytest.mark.parametrize("variant", [None, *VARIANTS])
def test_streams_give_the_same_on_every_engine(exported, variant):
    model = load_checkpoint(exported)
    streams = [
        Streams(model, VARIANTS[variant] if variant else None, solve_first_frame=True, engine=name)
        for name in ("torch", "onnxruntime")
    ]
    for seed in range(3):
        images = random_images(3, seed)
        first, second = (of.step(images, np.repeat(WHOLE_FRAME, 3, axis=0), [0, 1, 2]) for of in streams)
        np.testing.assert_allclose(first.keypoints, second.keypoints, atol=1e-4)
        np.testing.assert_array_equal(first.evaluations, second.evaluations)


def test_the_evaluation_has_the_keypoints_that_the_read_out_has(exported):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, export = load_checkpoint(exported), export_of(exported)
    images = random_images(2)
    with torch.inference_mode():
        embedded = model.embed(images)
        expected = model.cell(model.initial_state(embedded), embedded)
        keypoints, uncertainty, _ = model.read_out(expected)
    inputs = {"z": np.zeros(expected.shape, np.float32), "embedded": embedded.numpy()}
    outputs = onnxruntime.InferenceSession(export.cell, providers=["CPUExecutionProvider"]).run(None, inputs)
    for output, value in zip(outputs, (expected, keypoints, uncertainty), strict=True):
        np.testing.assert_allclose(output, value, atol=1e-4)


def test_auto_is_onnxruntime_where_the_export_of_these_weights_lies_beside_them_and_torch_elsewhere(exported):
    model = load_checkpoint(exported)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(open_engine(model), OnnxEngine)
        assert isinstance(open_engine(model.with_solver(AndersonConfig(max_evals=3))), OnnxEngine)
        assert isinstance(open_engine(model, "torch"), TorchEngine)
        assert isinstance(open_engine(model, precision="bf16"), TorchEngine)
        assert isinstance(open_engine(small_model()), TorchEngine)


def test_a_stale_export_is_never_used_and_auto_says_so(exported):
    model = load_checkpoint(exported)
    with torch.no_grad():
        model.cell.head.weight += 1e-3
    with pytest.warns(UserWarning, match="exported from other weights"):
        assert isinstance(open_engine(model), TorchEngine)
    with pytest.raises(ValueError, match="exported from other weights"):
        open_engine(model, "onnxruntime")


def test_a_damaged_export_is_never_used_and_auto_says_so(exported, tmp_path):
    path = shutil.copy(exported, tmp_path)
    export = export_paths(Path(path))
    export.backbone.write_bytes(b"no network")
    shutil.copy(export_of(exported).cell, export.cell)
    with pytest.warns(UserWarning, match="run export.py again"):
        assert isinstance(open_engine(load_checkpoint(path)), TorchEngine)
    with pytest.raises(ValueError, match=r"small\.backbone\.onnx: not a network"):
        open_engine(load_checkpoint(path), "onnxruntime")


def test_a_backbone_and_a_cell_of_two_exports_are_no_export(exported, tmp_path):
    path = Path(shutil.copy(exported, tmp_path))
    shutil.copy(export_of(exported).backbone, export_paths(path).backbone)
    engine = OnnxEngine(export_of(exported))
    stored = engine.session.get_modelmeta().custom_metadata_map[CHECKSUM_KEY]
    content = export_of(exported).cell.read_bytes().replace(engine.digest.encode(), b"1" * 64)
    content = content.replace(stored.encode(), file_checksum(content, stored).encode())
    export_paths(path).cell.write_bytes(content)
    with pytest.warns(UserWarning, match="exported from other weights"):
        assert isinstance(open_engine(load_checkpoint(path)), TorchEngine)


def test_a_changed_byte_of_an_export_is_found(exported, tmp_path):
    path = Path(shutil.copy(exported, tmp_path))
    shutil.copy(export_of(exported).cell, export_paths(path).cell)
    content = bytearray(export_of(exported).backbone.read_bytes())
    content[len(content) // 2] ^= 1
    export_paths(path).backbone.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"small\.backbone\.onnx: (damaged|not a network)"):
        open_engine(load_checkpoint(path), "onnxruntime")


def test_the_two_files_of_an_export_in_each_others_place_are_named(exported, tmp_path):
    path = Path(shutil.copy(exported, tmp_path))
    shutil.copy(export_of(exported).cell, export_paths(path).backbone)
    shutil.copy(export_of(exported).backbone, export_paths(path).cell)
    with pytest.raises(CheckpointError, match=r"small\.backbone\.onnx: its inputs are z, embedded, not images"):
        open_engine(load_checkpoint(path), "onnxruntime")


def test_onnxruntime_that_cannot_be_had_is_an_error_that_says_what_to_do(exported, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no export beside it; run export\.py"):
        open_engine(load_checkpoint(shutil.copy(exported, tmp_path)), "onnxruntime")
    with pytest.raises(ValueError, match="needs the CPU and fp32, not cpu and bf16"):
        open_engine(load_checkpoint(exported), "onnxruntime", "bf16")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        open_engine(load_checkpoint(exported), "onnxruntime")


def test_the_digest_is_of_weights_and_form_and_not_of_the_solver():
    model = small_model()
    assert weights_digest(model) == weights_digest(model.with_solver(AndersonConfig()))
    assert weights_digest(model) != weights_digest(small_model(seed=1))
    assert weights_digest(model) != weights_digest(small_model(normalisation="linear"))


@dataclass(frozen=True, kw_only=True)
class OwnConfig(FixedPointConfig):
    """A solver of a user, without a name."""


def test_a_solver_of_the_users_own_is_used_but_not_written(tmp_path):
    model, own = (small_model().with_solver(kind(max_evals=3, tol=0)) for kind in (FixedPointConfig, OwnConfig))
    images = random_images(2)
    assert torch.equal(Network(model, engine="torch")(images).keypoints, Network(own, engine="torch")(images).keypoints)
    assert weights_digest(model) == weights_digest(own)
    with pytest.raises(OptionError, match="solver OwnConfig has no name, so it cannot be written"):
        save_checkpoint(own, tmp_path / "weights.safetensors")


def test_weights_that_half_precision_does_not_hold_stay_as_they_are():
    onnx = pytest.importorskip("onnx")

    class Scale(torch.nn.Module):
        def __init__(self, weight: float):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((16, 16, 1, 1), weight))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.conv2d(images, self.weight)

    for weight, kind in ((0.5, onnx.TensorProto.FLOAT16), (0.1, onnx.TensorProto.FLOAT), (1e6, onnx.TensorProto.FLOAT)):
        content = onnx.load_from_string(to_onnx(Scale(weight), {"x": torch.zeros(2, 16, 4, 4)}, ("y",), "digest"))
        assert kind in {initializer.data_type for initializer in content.graph.initializer if initializer.dims}
        assert {entry.key: entry.value for entry in content.metadata_props}[DIGEST_KEY] == "digest"


def test_the_shipped_export_is_that_of_the_shipped_weights_and_small():
    model, export = load_checkpoint(SHIPPED_WEIGHTS), export_of(SHIPPED_WEIGHTS)
    engine = open_engine(model, "onnxruntime")
    images = random_images(2, size=model.config.image_size)
    found, expected = (Network(model, engine=of)(images) for of in (engine, "torch"))
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-4)
    assert export.backbone.stat().st_size + export.cell.stat().st_size <= 4 * 2**20


def test_a_field_at_its_default_is_no_part_of_the_digest(monkeypatch):
    model = small_model()
    digest, plain = weights_digest(model), LDEQConfig.to_dict
    monkeypatch.setattr(LDEQConfig, "to_dict", lambda config: {**plain(config), "new_field": "as before"})
    assert weights_digest(model) == digest


def test_another_default_type_of_torch_changes_nothing(exported):
    engine = open_engine(load_checkpoint(exported), "onnxruntime")
    images = random_images(2)
    expected = engine.embed(images)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(engine.embed(images), expected)
    finally:
        torch.set_default_dtype(before)
