"""HRNet-style backbones: parallel branches at four resolutions that exchange their features.

Source: Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020 (section 3).
Modules are named as in the published ImageNet classification checkpoints, so that those weights load.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import CheckpointError, OptionError
from utils.safetensors_format import from_bytes

BOTTLENECK_EXPANSION = 4
COARSEST_STRIDE = 32
CLASSIFICATION_HEAD = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
KEYS_NAMED_IN_ERRORS = 3


@dataclass(frozen=True)
class HRNetConfig:
    """The dimensions of an HRNet.

    Attributes:
        width: channels C of the branch at 1/4 resolution; the others have 2C, 4C and 8C.
        stem_width: channels of the two stride-2 convolutions.
        layer1_planes: inner channels of the bottleneck units of the first stage; it puts out four times as many.
        layer1_units: bottleneck units in the first stage.
        blocks: exchange blocks in stages 2, 3 and 4.
        units: residual units per branch of every exchange block in stages 2, 3 and 4.

    Raises:
        ValueError: a number is below 1, or `blocks` or `units` does not have three entries.
    """

    width: int
    stem_width: int
    layer1_planes: int
    layer1_units: int
    blocks: tuple[int, int, int]
    units: tuple[int, int, int]

    def __post_init__(self) -> None:
        if len(self.blocks) != 3 or len(self.units) != 3:
            raise OptionError(f"HRNetConfig: blocks and units need one number for each of stages 2, 3, 4: {self}")
        scalars = (self.width, self.stem_width, self.layer1_planes, self.layer1_units)
        if min(*scalars, *self.blocks, *self.units) < 1:
            raise OptionError(f"HRNetConfig: every number must be at least 1: {self}")

    @property
    def branch_widths(self) -> tuple[int, int, int, int]:
        """Channels of the branches at 1/4, 1/8, 1/16 and 1/32 resolution."""
        return (self.width, 2 * self.width, 4 * self.width, 8 * self.width)


HRNET_CONFIGS = {
    "hrnet_w18": HRNetConfig(
        width=18, stem_width=64, layer1_planes=64, layer1_units=4, blocks=(1, 4, 3), units=(4, 4, 4)
    ),
    "hrnet_w18_small": HRNetConfig(
        width=16, stem_width=64, layer1_planes=32, layer1_units=1, blocks=(1, 1, 1), units=(2, 2, 2)
    ),
    "hrnet_mini": HRNetConfig(
        width=16, stem_width=32, layer1_planes=16, layer1_units=1, blocks=(1, 1, 1), units=(2, 2, 2)
    ),
}


def _convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


def _conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_convolution(in_channels, out_channels, kernel_size, stride), nn.BatchNorm2d(out_channels))


def _conv_bn_relu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return _conv_bn(in_channels, out_channels, 3, stride).append(nn.ReLU(inplace=True))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions around a shortcut: `(B, C, H, W)` to the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = _convolution(channels, channels, 3)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit."""
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu_(out + x)


class BottleneckUnit(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut: `(B, in, H, W)` to `(B, 4 planes, H, W)`."""

    def __init__(self, in_channels: int, planes: int):
        super().__init__()
        out_channels = BOTTLENECK_EXPANSION * planes
        self.conv1 = _convolution(in_channels, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _convolution(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _convolution(planes, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Identity() if in_channels == out_channels else _conv_bn(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit."""
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu_(out + self.downsample(x))


class ExchangeBlock(nn.Module):
    """Residual units on every branch, then an exchange unit that adds every branch to every other.

    A finer branch reaches a coarser one through stride-2 3x3 convolutions; a coarser one reaches a finer one through a
    1x1 convolution and nearest-neighbour upsampling.

    Args:
        widths: channels of each branch, finest first; every branch has half the resolution of the one before.
        units: residual units per branch.
    """

    def __init__(self, widths: tuple[int, ...], units: int):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(ResidualUnit(width) for _ in range(units))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    @staticmethod
    def _path(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
        """Convolutions that give the source branch the target's width and, if the target is coarser, its resolution."""
        if source == target:
            return nn.Identity()
        if source > target:
            return _conv_bn(widths[source], widths[target], 1)
        halvings = [_conv_bn_relu(widths[source], widths[source], stride=2) for _ in range(target - source - 1)]
        return nn.Sequential(*halvings, _conv_bn(widths[source], widths[target], 3, stride=2))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map branch features, finest first, to fused features of the same shapes."""
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        return [F.relu_(self._fuse(features, target)) for target in range(len(features))]

    def _fuse(self, features: list[Tensor], target: int) -> Tensor:
        # PyTorch's stub does not know what a ModuleList holds.
        paths: nn.ModuleList = self.fuse_layers[target]  # type: ignore[assignment]
        # Nearest-neighbour upsampling commutes with addition: one doubling per resolution, coarsest first, is enough.
        coarser = None
        for source in range(len(features) - 1, target, -1):
            contribution = paths[source](features[source])
            coarser = F.interpolate(contribution if coarser is None else contribution + coarser, scale_factor=2.0)
        fused = features[target] if coarser is None else features[target] + coarser
        for source in range(target):
            fused = fused + paths[source](features[source])
        return fused


class HRNet(nn.Module):
    """HRNet with a projection of all its branches at 1/4 resolution: the injection of the landmark head.

    Args:
        config: the dimensions of the network.
        out_channels: channels of the injection.
    """

    def __init__(self, config: HRNetConfig, out_channels: int):
        super().__init__()
        widths = config.branch_widths
        self.config = config
        self.conv1 = _convolution(3, config.stem_width, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(config.stem_width)
        self.conv2 = _convolution(config.stem_width, config.stem_width, 3, stride=2)
        self.bn2 = nn.BatchNorm2d(config.stem_width)
        layer1_width = BOTTLENECK_EXPANSION * config.layer1_planes
        self.layer1 = nn.Sequential(
            *(
                BottleneckUnit(config.stem_width if index == 0 else layer1_width, config.layer1_planes)
                for index in range(config.layer1_units)
            )
        )
        self.transition1 = _transition((layer1_width,), widths[:2])
        self.stage2 = _stage(widths[:2], config.blocks[0], config.units[0])
        self.transition2 = _transition(widths[:2], widths[:3])
        self.stage3 = _stage(widths[:3], config.blocks[1], config.units[1])
        self.transition3 = _transition(widths[:3], widths)
        self.stage4 = _stage(widths, config.blocks[2], config.units[2])
        self.projection = nn.Conv2d(sum(widths), out_channels, 1)
        # The meta device has nothing to initialise, and PyTorch would load its compiler for it, which takes seconds.
        if not self.projection.weight.is_meta:
            self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # No ReLU follows the projection; its many inputs, not its few outputs, set the scale of the injection.
        nn.init.kaiming_normal_(self.projection.weight, nonlinearity="linear")
        nn.init.zeros_(self.projection.get_parameter("bias"))

    def features(self, images: Tensor) -> list[Tensor]:
        """Compute the output of stage 4.

        Args:
            images: `(B, 3, H, W)`, ImageNet-normalised RGB, H and W multiples of 32.

        Returns:
            Four tensors `(B, C, H/4, W/4)`, `(B, 2C, H/8, W/8)`, `(B, 4C, H/16, W/16)`, `(B, 8C, H/32, W/32)`.

        Raises:
            ValueError: the images do not have that shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or any(side % COARSEST_STRIDE for side in images.shape[2:]):
            raise OptionError(
                f"HRNet takes images of shape (B, 3, H, W) with H and W multiples of {COARSEST_STRIDE}, "
                f"not {tuple(images.shape)}"
            )
        x = F.relu_(self.bn1(self.conv1(images)))
        x = F.relu_(self.bn2(self.conv2(x)))
        branches = self.stage2(_enter(self.transition1, [self.layer1(x)]))
        branches = self.stage3(_enter(self.transition2, branches))
        return self.stage4(_enter(self.transition3, branches))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the injection.

        Args:
            images: `(B, 3, H, W)`, ImageNet-normalised RGB, H and W multiples of 32.

        Returns:
            `(B, out_channels, H/4, W/4)`: the 1x1 projection of the concatenated branches, upsampled bilinearly.

        Raises:
            ValueError: the images do not have that shape.
        """
        return self.project(self.features(images))

    def project(self, branches: list[Tensor]) -> Tensor:
        """Upsample the branches to the finest one, concatenate them and project 1x1.

        Args:
            branches: four tensors as `features` returns them.

        Returns:
            `(B, out_channels, H/4, W/4)`.
        """
        # A 1x1 convolution commutes with upsampling: each branch is projected at its own resolution, which is cheaper.
        weights = self.projection.weight.split(self.config.branch_widths, dim=1)
        injection = F.conv2d(branches[0], weights[0], self.projection.bias)
        for branch, weight in zip(branches[1:], weights[1:], strict=True):
            projected = F.conv2d(branch, weight)
            injection = injection + F.interpolate(projected, size=injection.shape[2:], mode="bilinear")
        return injection


def _transition(previous: tuple[int, ...], widths: tuple[int, ...]) -> nn.ModuleList:
    """Layers that give every branch its width, and make one more branch from the coarsest."""
    layers = [
        nn.Identity() if before == after else _conv_bn_relu(before, after)
        for before, after in zip(previous, widths, strict=False)
    ]
    layers.append(nn.Sequential(_conv_bn_relu(previous[-1], widths[-1], stride=2)))
    return nn.ModuleList(layers)


def _enter(transition: nn.ModuleList, branches: list[Tensor]) -> list[Tensor]:
    """Apply a transition: the additional branch, the last, comes from the coarsest of the branches."""
    return [layer(x) for layer, x in zip(transition, [*branches, branches[-1]], strict=True)]


def _stage(widths: tuple[int, ...], blocks: int, units: int) -> nn.Sequential:
    return nn.Sequential(*(ExchangeBlock(widths, units) for _ in range(blocks)))


def load_backbone_weights(backbone: HRNet, path: str | Path) -> None:
    """Load published HRNet classification weights into a backbone, in place; the projection keeps its values.

    The file is a PyTorch file (`.pth`, `.pt`: a state dict, plain or under "state_dict", read with `weights_only=True`)
    or a `.safetensors` file. A `module.` prefix is dropped and the classification head is ignored.

    Args:
        backbone: the network for the weights; it is not changed if the file does not fit.
        path: the file of weights.

    Raises:
        CheckpointError: the file is missing, damaged or no state dict; or keys are missing, unknown, of another
            shape or not finite. The message names the file and the first such keys.
    """
    path = Path(path)
    weights = {key.removeprefix("module."): value for key, value in _read_state_dict(path).items()}
    weights = {key: value for key, value in weights.items() if not key.startswith(CLASSIFICATION_HEAD)}
    expected = {key: value for key, value in backbone.state_dict().items() if not key.startswith("projection.")}
    problems = {
        # PyTorch before 0.4.1 did not save this counter. Nothing here reads it.
        "missing": [key for key in expected if key not in weights and not key.endswith(".num_batches_tracked")],
        "unknown": [key for key in weights if key not in expected],
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} instead of {tuple(value.shape)}"
            for key, value in expected.items()
            if key in weights and weights[key].shape != value.shape
        ],
        "not finite": [key for key in expected if key in weights and not weights[key].isfinite().all()],
    }
    complaints = [f"{len(keys)} {what}: {_first(keys)}" for what, keys in problems.items() if keys]
    if complaints:
        raise CheckpointError(
            f"{path}: not the weights of this HRNet (is it another variant?): {'; '.join(complaints)}"
        )
    backbone.load_state_dict(weights, strict=False)


def _read_state_dict(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of backbone weights")
    try:
        content: Any
        if path.suffix == ".safetensors":
            content, _ = from_bytes(path.read_bytes())
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise many kinds of error
        raise CheckpointError(
            f"{path}: cannot be read as a PyTorch or safetensors file of tensors ({type(error).__name__}); "
            "it is damaged or another kind of file"
        ) from error
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: is not a state dict of tensors")
    return content


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:KEYS_NAMED_IN_ERRORS]) + (", ..." if len(keys) > KEYS_NAMED_IN_ERRORS else "")
