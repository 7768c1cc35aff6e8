import pytest
import torch
from small_networks import random_images, small_config, small_model
from torch import Tensor
from torch.nn import functional as F

from models.cell import Cell, LearnedGate
from models.deq import repeat


def random_inputs(cell: Cell, size: int = 16, batch: int = 2) -> tuple[Tensor, Tensor]:
    """A state and an injection."""
    generator = torch.Generator().manual_seed(1)
    injection_channels = cell.fuse.conv.in_channels - cell.state_channels
    z = torch.rand(batch, cell.state_channels, size, size, generator=generator)
    return z, torch.randn(batch, injection_channels, size, size, generator=generator)


def conv(weights: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    weight = weights[f"{name}.weight"]
    return F.conv2d(features, weight, weights[f"{name}.bias"], padding=(weight.shape[-1] - 1) // 2)


def block(weights: dict[str, Tensor], name: str, features: Tensor, groups: int | None) -> Tensor:
    """Convolution, LeakyReLU, norm, in elementary operations; `groups` None is batch norm with running statistics."""
    features = conv(weights, f"{name}.conv", features)
    features = torch.where(features > 0, features, 0.01 * features)
    if groups is None:
        mean = weights[f"{name}.norm.running_mean"][None, :, None, None]
        variance = weights[f"{name}.norm.running_var"][None, :, None, None]
        normed = (features - mean) / (variance + 1e-5).sqrt()
    else:
        grouped = features.reshape(len(features), groups, -1)
        mean = grouped.mean(dim=2, keepdim=True)
        variance = (grouped - mean).square().mean(dim=2, keepdim=True)
        normed = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(features.shape)
    scale, shift = weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"]
    return normed * scale[None, :, None, None] + shift[None, :, None, None]


def plain_cell(weights: dict[str, Tensor], z: Tensor, injection: Tensor, groups: int | None, beta: float) -> Tensor:
    """The cell written down a second time, from its description alone."""
    features = block(weights, "fuse", torch.cat([z, injection], dim=1), groups)
    skips = []
    for level in range(4):
        features = block(weights, f"hourglass.down.{level}.same", features, groups)
        skips.append(features)
        pooled = (
            features[:, :, ::2, ::2]
            + features[:, :, 1::2, ::2]
            + features[:, :, ::2, 1::2]
            + features[:, :, 1::2, 1::2]
        ) / 4
        features = block(weights, f"hourglass.down.{level}.widen", pooled, groups)
    features = block(weights, "hourglass.bottleneck", features, groups)
    for level in range(4):
        features = block(weights, f"hourglass.up.{level}.narrow", features, groups)
        upsampled = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        features = block(weights, f"hourglass.up.{level}.merge", torch.cat([skips[3 - level], upsampled], 1), groups)
        features = features + block(weights, f"hourglass.up.{level}.refine", features, groups)
    raw = conv(weights, "head", features)
    return torch.exp(beta * (raw - raw.flatten(2).max(dim=2).values[:, :, None, None]))


@torch.no_grad()
@pytest.mark.parametrize(
    ("changes", "groups"),
    [({"latent_channels": 2}, 4), ({"cell_groups": 2}, 2), ({"mode": "explicit"}, None)],
    ids=["latent channels", "two groups", "batch norm"],
)
def test_the_cell_is_the_hourglass_of_its_description(changes, groups):
    cell = small_model(softargmax_beta=1.3, **changes).cell.double()
    z, injection = (tensor.double() for tensor in random_inputs(cell))
    expected = plain_cell(dict(cell.state_dict()), z, injection, groups, beta=1.3)
    torch.testing.assert_close(cell(z, cell.embed(injection)), expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_embedding_the_injection_beforehand_changes_nothing():
    cell = small_model().cell.double()
    # The state's share is small in the small network: at full size a wrong split of the weights cannot hide.
    cell.fuse.conv.weight[:, : cell.state_channels] *= 100
    z, injection = (tensor.double() for tensor in random_inputs(cell))
    seen = []
    cell.hourglass.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    cell(z, cell.embed(injection))
    torch.testing.assert_close(seen[0], cell.fuse(torch.cat([z, injection], dim=1)), rtol=0, atol=1e-12)


@torch.no_grad()
def test_an_evaluation_changes_neither_the_state_nor_the_embedded_injection():
    cell = small_model().cell
    z, injection = random_inputs(cell)
    embedded = cell.embed(injection)
    before = z.clone(), embedded.clone()
    cell(z, embedded)
    assert torch.equal(z, before[0])
    assert torch.equal(embedded, before[1])


def test_the_hourglass_widens_by_the_increment_at_each_level():
    hourglass = Cell(small_config(cell_width=8, cell_width_increment=4)).hourglass
    assert [down.same.conv.out_channels for down in hourglass.down] == [8, 12, 16, 20]
    assert hourglass.bottleneck.conv.out_channels == 24
    assert [up.refine.conv.out_channels for up in hourglass.up] == [20, 16, 12, 8]


@torch.no_grad()
def test_all_state_channels_are_normalised_the_latent_ones_too():
    cell = small_model(latent_channels=3).cell
    z, injection = random_inputs(cell)
    image = cell(z, cell.embed(injection))
    assert image.shape == (2, 8, 16, 16)
    assert torch.equal(image.amax(dim=(2, 3)), torch.ones(2, 8))


@torch.no_grad()
def test_the_state_stays_float32_under_autocast_and_is_not_rounded_to_bfloat16():
    cell = small_model().cell
    z, injection = random_inputs(cell)
    exact = cell(z, cell.embed(injection))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedded = cell.embed(injection)
        image = cell(z, embedded)
    assert embedded.dtype == torch.bfloat16
    assert image.dtype == torch.float32
    assert (image.bfloat16().float() != image).float().mean() > 0.5
    assert (image - exact).square().mean().sqrt() < 0.05


@torch.no_grad()
@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [("softargmax", lambda raw: (raw - raw.amax(dim=(2, 3), keepdim=True)).exp()), ("none", lambda raw: raw)],
)
def test_the_normalisation_comes_after_the_head(normalisation, expected):
    cell = small_model(normalisation=normalisation).cell
    z, injection = random_inputs(cell)
    raw = []
    cell.head.register_forward_hook(lambda module, args, output: raw.append(output))
    image = cell(z, cell.embed(injection))
    torch.testing.assert_close(image, expected(raw[0]))


@torch.no_grad()
def test_a_learned_beta_enters_as_its_softplus():
    learned, fixed = (
        small_model(softargmax_beta=0.7, softplus_beta=True).cell,
        small_model(softargmax_beta=F.softplus(torch.tensor(0.7, dtype=torch.float64)).item()).cell,
    )
    z, injection = random_inputs(learned)
    torch.testing.assert_close(learned(z, learned.embed(injection)), fixed(z, fixed.embed(injection)))


@torch.no_grad()
def test_a_constant_gate_takes_its_share_of_the_new_heatmaps():
    plain, damped = small_model().cell, small_model(gate="constant", gate_start=0.3).cell
    z, injection = random_inputs(plain)
    embedded = plain.embed(injection)
    torch.testing.assert_close(damped(z, embedded), 0.7 * z + 0.3 * plain(z, embedded))


def peaks(columns: list[int]) -> Tensor:
    """(1, K, 16, 16) heatmaps: Gaussian peaks of standard deviation 1 in row 8."""
    x, y = torch.arange(16.0), torch.arange(16.0)[:, None]
    return torch.stack([torch.exp(-((x - column) ** 2 + (y - 8) ** 2) / 2) for column in columns])[None]


@torch.no_grad()
def test_a_learned_gate_starts_as_told_and_opens_with_the_distance():
    gate = LearnedGate(4, 3, start=0.6)
    g = gate(peaks([5, 6, 8]), peaks([5, 5, 5]), torch.randn(1, 4, 16, 16))
    assert g.shape == (1, 3, 1, 1)
    # odds 0.6 / 0.4, times (1 + d^2)^2 for a standard deviation of 1
    expected = [odds / (1 + odds) for odds in (1.5, 1.5 * 2**2, 1.5 * 10**2)]
    torch.testing.assert_close(g.flatten(), torch.tensor(expected), atol=2e-3, rtol=0)
    assert gate(torch.zeros(1, 3, 16, 16), peaks([5, 5, 5]), torch.zeros(1, 4, 16, 16)).min() > 0.99


@torch.no_grad()
def test_a_learned_gate_sees_the_features_under_the_new_heatmap():
    gate = LearnedGate(1, 2, start=0.5)
    gate.sight.weight.fill_(3.0)
    features = torch.zeros(1, 1, 16, 16)
    features[..., :8] = 1  # the first peak lies on the ones, the second beside them
    g = gate(peaks([3, 13]), peaks([3, 13]), features).flatten()
    torch.testing.assert_close(g, torch.tensor([3.0, 0.0]).sigmoid(), atol=1e-3, rtol=0)


@torch.no_grad()
def test_a_gate_keeps_the_fixed_point_and_makes_it_last():
    plain = small_model()
    gated = small_model(gate="learned", gate_start=0.4)
    gated.load_state_dict(plain.state_dict(), strict=False)
    embedded = plain.embed(random_images(2))
    fixed_point = repeat(lambda z: plain.cell(z, embedded), plain.initial_state(embedded), 60)
    torch.testing.assert_close(gated.cell(fixed_point, embedded), fixed_point, atol=1e-5, rtol=0)
    moved = fixed_point + 1e-3 * torch.randn_like(fixed_point)
    ratio = (gated.cell(moved, embedded) - fixed_point).norm() / (moved - fixed_point).norm()
    assert 0.5 < ratio < 0.7
