from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from models.backbones.hrnet import (
    HRNET_CONFIGS,
    ExchangeBlock,
    HRNet,
    HRNetConfig,
    load_backbone_weights,
)
from utils.errors import CheckpointError

TINY = HRNetConfig(width=4, stem_width=8, layer1_planes=4, layer1_units=2, blocks=(1, 2, 1), units=(2, 1, 1))


def randomise_batch_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)


def make_network(seed: int = 0, config: HRNetConfig = TINY, out_channels: int = 6) -> HRNet:
    torch.manual_seed(seed)
    network = HRNet(config, out_channels).eval()
    randomise_batch_norms(network)
    return network


def published_weights(network: HRNet) -> dict[str, Tensor]:
    """The weights in the form of a classification checkpoint: no projection, but a head."""
    weights = {key: value.clone() for key, value in network.state_dict().items() if not key.startswith("projection.")}
    for head in ("incre_modules.0.0.conv1", "downsamp_modules.0.0", "final_layer.0", "classifier"):
        weights[f"{head}.weight"] = torch.ones(2, 2)
    return weights


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["hrnet_w18", "hrnet_w18_small"])
def test_features_equal_those_of_timm_with_the_same_weights(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    oracle = timm.create_model(name, pretrained=False).eval()
    randomise_batch_norms(oracle)
    path = _save_plain(oracle.state_dict(), tmp_path)
    network = HRNet(HRNET_CONFIGS[name], out_channels=1).eval()
    load_backbone_weights(network, path)
    path.unlink()  # pytest would keep its 85 MB

    expected: list[Tensor] = []
    oracle.stage4.register_forward_hook(lambda module, inputs, outputs: expected.extend(outputs))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        oracle.forward_features(images)
        features = network.features(images)
    assert [tuple(x.shape) for x in features] == [
        (1, width, 16 >> level, 16 >> level) for level, width in enumerate(network.config.branch_widths)
    ]
    for actual, wanted in zip(features, expected, strict=True):
        assert wanted.std() > 0.01
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-4)


@torch.no_grad()
def test_injection_equals_the_projection_of_the_concatenated_upsampled_branches(images: Tensor) -> None:
    network = make_network()
    branches = network.features(images)
    assert [tuple(x.shape[1:]) for x in branches] == [(4, 16, 24), (8, 8, 12), (16, 4, 6), (32, 2, 3)]
    upsampled = [F.interpolate(x, size=(16, 24), mode="bilinear", align_corners=False) for x in branches]
    torch.testing.assert_close(network(images), network.projection(torch.cat(upsampled, dim=1)))


@pytest.mark.parametrize("name", sorted(HRNET_CONFIGS))
def test_projection_is_one_weight_over_all_branches(name: str) -> None:
    with torch.device("meta"):
        network = HRNet(HRNET_CONFIGS[name], out_channels=32)
    assert network.projection.weight.shape == (32, 15 * network.config.width, 1, 1)


def test_exchange_block_lets_every_branch_reach_every_other() -> None:
    torch.manual_seed(0)
    block = ExchangeBlock((4, 8, 16), units=1).eval()
    inputs = [torch.randn(1, 4 << level, 16 >> level, 16 >> level, requires_grad=True) for level in range(3)]
    for output in block(list(inputs)):
        gradients = torch.autograd.grad(output.sum(), inputs, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


@torch.no_grad()
def test_exchange_block_leaves_its_inputs_alone() -> None:
    torch.manual_seed(0)
    block = ExchangeBlock((4, 8), units=1).eval()
    inputs = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    before = [x.clone() for x in inputs]
    block(inputs)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


def test_training_reaches_every_parameter(images: Tensor) -> None:
    network = make_network().train()
    network(images).square().mean().backward()
    silent = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert silent == []


@torch.no_grad()
def test_memory_format_does_not_change_the_injection(images: Tensor) -> None:
    network = make_network()
    expected = network(images)
    injection = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    assert injection.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(injection, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 64, 48), (1, 1, 64, 64), (3, 64, 64)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        make_network()(torch.zeros(shape))


@pytest.mark.parametrize("change", [{"width": 0}, {"blocks": (1, 0, 1)}, {"units": (1, 1)}])
def test_impossible_dimensions_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="HRNetConfig"):
        replace(TINY, **change)


def _save_plain(weights: dict[str, Tensor], folder: Path) -> Path:
    torch.save(weights, folder / "plain.pth")
    return folder / "plain.pth"


def _save_from_data_parallel(weights: dict[str, Tensor], folder: Path) -> Path:
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, folder / "nested.pt")
    return folder / "nested.pt"


def _save_without_counters(weights: dict[str, Tensor], folder: Path) -> Path:
    return _save_plain({key: value for key, value in weights.items() if "num_batches" not in key}, folder)


def _save_safetensors(weights: dict[str, Tensor], folder: Path) -> Path:
    save_file(weights, folder / "weights.safetensors")
    return folder / "weights.safetensors"


SAVERS = [_save_plain, _save_from_data_parallel, _save_without_counters, _save_safetensors]


@pytest.mark.parametrize("save", SAVERS)
def test_published_weights_load_and_the_projection_stays(
    save: Callable[[dict[str, Tensor], Path], Path], tmp_path: Path, images: Tensor
) -> None:
    source, target = make_network(seed=1), make_network(seed=2)
    projection = target.projection.weight.clone()
    load_backbone_weights(target, save(published_weights(source), tmp_path))
    assert torch.equal(target.projection.weight, projection)
    with torch.no_grad():
        for actual, wanted in zip(target.features(images), source.features(images), strict=True):
            assert torch.equal(actual, wanted)


def _drop(weights: dict[str, Tensor]) -> None:
    del weights["stage3.1.branches.0.0.conv1.weight"]


def _reshape(weights: dict[str, Tensor]) -> None:
    weights["conv1.weight"] = weights["conv1.weight"][:, :2]


def _add_unit(weights: dict[str, Tensor]) -> None:
    weights["stage4.0.branches.3.1.conv1.weight"] = torch.zeros(32, 32, 3, 3)


def _poison(weights: dict[str, Tensor]) -> None:
    weights["bn2.running_var"][1] = torch.nan


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (_drop, r"1 missing: stage3\.1\.branches\.0\.0\.conv1\.weight"),
        (_reshape, r"1 of another shape: conv1\.weight \(8, 2, 3, 3\) instead of \(8, 3, 3, 3\)"),
        (_add_unit, r"1 unknown: stage4\.0\.branches\.3\.1\.conv1\.weight"),
        (_poison, r"1 not finite: bn2\.running_var"),
    ],
)
def test_weights_that_do_not_fit_are_refused_whole(
    spoil: Callable[[dict[str, Tensor]], None], complaint: str, tmp_path: Path
) -> None:
    weights = published_weights(make_network(seed=1))
    spoil(weights)
    path = _save_plain(weights, tmp_path)
    network = make_network(seed=2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"plain\.pth: .*{complaint}"):
        load_backbone_weights(network, path)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_weights_of_another_variant_are_refused_with_the_first_keys_only(tmp_path: Path) -> None:
    path = _save_plain(published_weights(make_network(config=replace(TINY, width=8))), tmp_path)
    with pytest.raises(CheckpointError, match=r"of another shape: (transition1\S+ [^:]*, ){3}\.\.\.$"):
        load_backbone_weights(make_network(), path)


@pytest.mark.parametrize("save", [_save_plain, _save_safetensors])
def test_truncated_file_is_refused(save: Callable[[dict[str, Tensor], Path], Path], tmp_path: Path) -> None:
    path = save(published_weights(make_network()), tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=rf"{path.name}: cannot be read"):
        load_backbone_weights(make_network(), path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (Path("of a class that is not allowed"), "cannot be read"),
        ([torch.zeros(1)], "not a state dict"),
        ({"state_dict": {"conv1.weight": 3}}, "not a state dict"),
    ],
)
def test_foreign_pickle_is_refused(content: object, complaint: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=rf"foreign\.pth: .*{complaint}"):
        load_backbone_weights(make_network(), tmp_path / "foreign.pth")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file"):
        load_backbone_weights(make_network(), tmp_path / "absent.pth")
