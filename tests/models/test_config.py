import json
import math
from dataclasses import asdict, fields, is_dataclass, replace

import pytest
import torch
from small_networks import small_config

from models import LDEQ, LDEQConfig, preset
from models.config import LATER_OPTIONS, PRESETS
from models.deq import GradientConfig
from solvers import AndersonConfig, BroydenConfig, FixedPointConfig
from utils.errors import OptionError

SOLVERS = [
    FixedPointConfig(max_evals=7, tol=0.01, criterion="absolute"),
    AndersonConfig(m=3, lam=1e-4, ridge="absolute", beta=0.8, stop_rule="batch"),
    BroydenConfig(memory=5, min_evals=2),
]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet"}, "backbone must be one of stem, hrnet_w18, hrnet_w18_small, hrnet_mini, not 'resnet'"),
        ({"normalisation": "softmax"}, "normalisation must be one of softargmax, linear, none, not 'softmax'"),
        ({"mode": "recurrent"}, "mode must be one of implicit, explicit, not 'recurrent'"),
        ({"landmarks": 0}, "landmarks must be at least 1, not 0"),
        ({"latent_channels": -1}, "latent_channels must be at least 0, not -1"),
        ({"injection_channels": 3}, "injection_channels must be at least 4, not 3"),
        ({"cell_width": 0}, "cell_width must be at least 1, not 0"),
        ({"cell_width_increment": -8}, "cell_width_increment must be at least 0, not -8"),
        ({"cell_groups": 0}, "cell_groups must be at least 1, not 0"),
        ({"explicit_depth": 0}, "explicit_depth must be at least 1, not 0"),
        ({"image_size": 0}, "image_size must be at least 64, not 0"),
        ({"image_size": 96}, "image_size must be a multiple of 64, not 96"),
        ({"gate_start": 1.0}, r"gate_start must be in \(0, 1\), not 1\.0"),
        ({"gate": "learned", "normalisation": "none"}, "normalisation must not be 'none'"),
        ({"softargmax_beta": 0.0}, "softargmax_beta must give a positive factor of at most"),
        ({"softargmax_beta": math.nan}, "softargmax_beta must be a finite number, not nan"),
    ],
)
def test_an_option_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        small_config(**options)


@pytest.mark.parametrize("option", ["landmark", "solvers", "groups"])
def test_a_misspelt_option_is_named(option):
    with pytest.raises(TypeError, match=option):
        LDEQConfig(**{option: 1})


def test_groups_that_do_not_divide_a_width_are_named_with_the_widths():
    message = (
        r"cell_width 8 and .* give the cell the widths 8, 12, 16, 20, 24; cell_groups 8 must divide every one of them"
    )
    with pytest.raises(ValueError, match=message):
        small_config(cell_width=8, cell_width_increment=4, cell_groups=8)


def test_groups_do_not_matter_to_a_cell_with_batch_norms():
    assert small_config(mode="explicit", cell_groups=7).batch_norm_cell
    with pytest.raises(ValueError, match="cell_groups"):
        small_config(mode="explicit", explicit_batch_norm=False, cell_groups=7)


def test_derived_sizes():
    config = small_config(landmarks=5, latent_channels=2, image_size=128, cell_width=16, cell_width_increment=8)
    assert config.state_channels == 7
    assert config.heatmap_size == 32
    assert config.cell_widths == (16, 24, 32, 40, 48)


def test_the_factor_of_a_learned_beta_is_its_softplus():
    assert small_config(softargmax_beta=1.5).effective_beta == 1.5
    learned = small_config(softargmax_beta=1.5, softplus_beta=True)
    assert learned.effective_beta == pytest.approx(math.log(1 + math.exp(1.5)))
    assert small_config(softargmax_beta=-2.0, softplus_beta=True).effective_beta == pytest.approx(0.126928, abs=1e-6)


def test_batch_norms_belong_to_explicit_mode_alone():
    assert small_config(mode="explicit").batch_norm_cell
    assert not small_config(mode="explicit", explicit_batch_norm=False).batch_norm_cell
    assert not small_config(mode="implicit").batch_norm_cell


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_a_configuration_survives_json(solver):
    gradient = GradientConfig(rule="ift", phantom_steps=2, backward_solver=replace(solver, criterion="relative"))
    config = small_config(
        landmarks=68,
        latent_channels=1,
        image_size=128,
        backbone="hrnet_mini",
        injection_channels=12,
        cell_width=16,
        cell_width_increment=8,
        cell_groups=4,
        normalisation="linear",
        softargmax_beta=2.5,
        softplus_beta=True,
        gate="learned",
        gate_start=0.4,
        mode="explicit",
        explicit_depth=3,
        explicit_batch_norm=False,
        solver=solver,
        final_evaluation=False,
        gradient=gradient,
    )
    default = asdict(LDEQConfig())
    assert all(default[name] != value for name, value in asdict(config).items())
    restored = LDEQConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert restored == config
    assert type(restored.solver) is type(solver)


def test_the_written_form_is_left_as_it_is_by_reading():
    values = small_config().to_dict()
    before = json.dumps(values)
    LDEQConfig.from_dict(values)
    assert json.dumps(values) == before


def test_absent_options_have_their_defaults():
    values = LDEQConfig().to_dict()
    for name in LATER_OPTIONS:
        del values[name]
    assert LDEQConfig.from_dict(values) == LDEQConfig()
    assert LDEQConfig.from_dict({**values, "gradient": {"rule": "ift"}}).gradient == GradientConfig(rule="ift")


def test_a_missing_option_is_refused_by_name():
    values = LDEQConfig().to_dict()
    del values["image_size"]
    with pytest.raises(OptionError, match="no option image_size"):
        LDEQConfig.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 3}, "unknown option 'width' of the network"),
        ({"solver": {"name": "newton"}}, "must be one of fixed_point, anderson, broyden, not 'newton'"),
        ({"solver": {"name": "anderson", "depth": 3}}, "unknown option 'depth' of the solver 'anderson'"),
        ({"gradient": {"rule": "jfb", "steps": 3}}, "unknown option 'steps' of the gradient"),
        (
            {"gradient": {"backward_solver": {"name": "newton"}}},
            "must be one of fixed_point, anderson, broyden, not 'newton'",
        ),
        ({"gradient": {"rule": "adjoint"}}, "rule must be one of ift, jfb, unroll, not 'adjoint'"),
    ],
)
def test_an_unknown_option_in_a_file_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        LDEQConfig.from_dict({**small_config().to_dict(), **change})


def test_a_preset_takes_changes_and_an_unknown_one_names_the_known():
    assert preset("mini", landmarks=68) == replace(PRESETS["mini"], landmarks=68)
    with pytest.raises(ValueError, match="unknown preset 'tiny'; known: mini, paper"):
        preset("tiny")


@pytest.mark.parametrize("kind", [LDEQConfig, GradientConfig, FixedPointConfig, AndersonConfig, BroydenConfig])
def test_the_docstring_describes_every_option(kind):
    assert is_dataclass(kind)
    inherited = {item.name for base in kind.__mro__[1:] if is_dataclass(base) for item in fields(base)}
    for item in fields(kind):
        if item.name not in inherited:
            assert f"\n        {item.name}: " in kind.__doc__, item.name


@pytest.mark.parametrize(("name", "least", "most"), [("mini", 0, 4 * 2**20 / 2), ("paper", 21e6, 24e6)])
def test_a_preset_has_the_size_it_is_known_for(name, least, most):
    """The mini network in half precision fits into a file of 4 MiB; the paper speaks of about 22 M parameters."""
    with torch.device("meta"):
        model = LDEQ(preset(name))
    assert least < sum(tensor.numel() for tensor in model.state_dict().values()) < most


def test_a_large_softplus_does_not_overflow():
    assert small_config(softargmax_beta=800.0, softplus_beta=True).effective_beta == 800
