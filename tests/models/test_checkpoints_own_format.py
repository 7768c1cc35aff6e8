"""Checkpoints in our own format: what is saved, and that it is what is loaded."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_files import assert_same_network
from safetensors.torch import load_file
from small_disk import small_disk
from small_networks import small_model

from models import load_checkpoint, save_checkpoint
from models.checkpoints import weights_digest
from models.deq import GradientConfig
from solvers import AndersonConfig, BroydenConfig
from utils.errors import OptionError, OutputError


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"latent_channels": 2, "solver": AndersonConfig(max_evals=5, m=3), "final_evaluation": False},
        {"mode": "explicit", "normalisation": "linear"},
        {"backbone": "hrnet_mini", "gradient": GradientConfig(rule="ift", backward_solver=BroydenConfig())},
    ],
    ids=["defaults", "anderson", "explicit", "hrnet"],
)
def test_what_is_saved_is_what_is_loaded(changes, tmp_path):
    model = small_model(**changes)
    save_checkpoint(model, tmp_path / "ldeq.safetensors")
    loaded = load_checkpoint(tmp_path / "ldeq.safetensors")
    assert loaded.config == model.config
    assert not loaded.training
    assert_same_network(loaded, model)


def test_half_precision_on_disk_is_single_precision_at_work(tmp_path, own_file):
    model = small_model()
    path = tmp_path / "half.safetensors"
    save_checkpoint(model, path, dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16, torch.int64}
    assert path.stat().st_size < 0.7 * own_file.stat().st_size
    original = model.state_dict()
    for name, tensor in load_checkpoint(path).state_dict().items():
        assert tensor.dtype == original[name].dtype
        torch.testing.assert_close(tensor, original[name], rtol=1e-3, atol=1e-6)


def test_a_state_other_than_the_fresh_one_is_loaded(tmp_path):
    model = small_model(seed=1)
    save_checkpoint(model, tmp_path / "ldeq.safetensors")
    assert not torch.equal(small_model().cell.head.weight, model.cell.head.weight)
    assert_same_network(load_checkpoint(tmp_path / "ldeq.safetensors"), model)


def test_the_format_is_told_by_the_content_and_not_by_the_name(tmp_path, original_file, own_file):
    original = original_file().rename(tmp_path / "a.safetensors")
    own = own_file.rename(tmp_path / "b.pth.tar")
    loaded = load_checkpoint(own)
    assert_same_network(load_checkpoint(original).with_solver(loaded.config.solver), loaded)


def test_a_save_onto_a_full_disk_leaves_the_older_file_and_no_part(own_file):
    before = own_file.read_bytes()
    with pytest.raises(OutputError, match=re.escape(f"{own_file}: cannot be written")), small_disk():
        save_checkpoint(small_model(seed=1), own_file)
    assert own_file.read_bytes() == before
    assert list(own_file.parent.iterdir()) == [own_file]


def test_a_folder_that_does_not_exist_is_made_when_saving(tmp_path):
    save_checkpoint(small_model(), tmp_path / "made" / "ldeq.safetensors")
    load_checkpoint(tmp_path / "made" / "ldeq.safetensors")


@pytest.mark.parametrize(("value", "dtype"), [(torch.nan, None), (1e5, torch.float16)])
def test_weights_that_could_not_be_read_back_are_not_written(value, dtype, own_file):
    before = own_file.read_bytes()
    model = small_model()
    model.cell.head.bias.data[0] = value
    with pytest.raises(ValueError, match=re.escape(f"{own_file}: not written") + r".*cell\.head\.bias.*not finite"):
        save_checkpoint(model, own_file, dtype)
    assert own_file.read_bytes() == before


def test_a_file_whose_path_is_not_utf8_is_loaded(own_file):
    path = Path(os.fsdecode(os.fsencode(own_file.parent) + b"/n\xe4me.safetensors"))
    shutil.copy(own_file, path)
    assert weights_digest(load_checkpoint(path)) == weights_digest(load_checkpoint(own_file))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, "float16", torch.float8_e4m3fn])
def test_weights_of_a_type_that_cannot_be_read_are_not_written(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(small_model(), path)
    before = path.read_bytes()
    with pytest.raises(OptionError, match="dtype of a checkpoint"):
        save_checkpoint(small_model(), path, dtype)
    assert path.read_bytes() == before


def test_opening_a_checkpoint_does_not_load_the_compiler():
    code = "import sys, models; models.load_checkpoint(sys.argv[1]); print('torch._dynamo' in sys.modules)"
    command = [sys.executable, "-c", code, "weights/ldeq_mini.safetensors"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_named(tmp_path, device):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(small_model(), path)
    with pytest.raises(OptionError, match=f"device {device} cannot be used"):
        load_checkpoint(path, device)
    with pytest.raises(OptionError, match="device must be a str or device"):
        load_checkpoint(path, [device])


def test_the_same_network_makes_the_same_file(tmp_path):
    model = small_model()
    for name in ("first", "second", "third"):
        save_checkpoint(model, tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in ("first", "second", "third")}) == 1


def test_arguments_of_the_wrong_kind_are_named(tmp_path):
    with pytest.raises(OptionError, match="path must be a str or PathLike, not None"):
        load_checkpoint(None)
    with pytest.raises(OptionError, match="path must be a str or PathLike, not 3"):
        save_checkpoint(small_model(), 3)
    with pytest.raises(OptionError, match="model must be a LDEQ"):
        save_checkpoint(torch.nn.Linear(1, 1), tmp_path / "weights")
