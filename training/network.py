"""The initial network of a run, its parameter groups, and the schedule of the learning rate."""

import math
from dataclasses import replace
from typing import Any

from models import LDEQ, load_checkpoint
from models.backbones.hrnet import HRNet, load_backbone_weights
from models.config import PRESETS as NETWORKS
from models.deq import GradientConfig
from training.config import InitialPart, RunOptions, TrainingConfig
from utils.errors import CheckpointError, OptionError

NAMED = ("backbone", "image_size", "cell_width", "cell_width_increment", "gate", "gate_start")
"""Options of a run that replace those of its preset."""


def build_network(options: RunOptions, config: TrainingConfig) -> LDEQ:
    """The preset's network with the named changes; its weights are random or read from files.

    Raises:
        OptionError: an option of the network is out of range, or does not fit another.
        CheckpointError: the weights are of another network.
    """
    network = NETWORKS[options.preset]
    named = {name: getattr(options, name) for name in NAMED}
    changes: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    solver = replace(network.solver, max_evals=options.max_evals) if options.max_evals else network.solver
    gradient = GradientConfig(rule=config.gradient, phantom_steps=config.phantom_steps)
    model = LDEQ(replace(network, solver=solver, gradient=gradient, **changes))
    if options.backbone_weights:
        if not isinstance(model.backbone, HRNet):
            raise OptionError("--backbone_weights needs an HRNet; choose another --backbone than stem")
        load_backbone_weights(model.backbone, options.backbone_weights)
    if options.initial_weights:
        try:
            load_part(model, load_checkpoint(options.initial_weights), options.initial_part)
        except RuntimeError as error:
            raise CheckpointError(
                f"{options.initial_weights}: does not fit the network of the run ({error})"
            ) from error
    return model


def load_part(model: LDEQ, source: LDEQ, part: InitialPart) -> None:
    """Copy the weights of another network, or only those of its backbone ("backbone"); a gate missing there is kept.

    Raises:
        RuntimeError: the other weights do not fit.
    """
    weights = source.state_dict()
    if part == "backbone":
        weights = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    fresh = ("cell.",) if part == "backbone" else ("cell.gate.",)
    kept = model.state_dict()
    weights |= {name: value for name, value in kept.items() if name.startswith(fresh) and name not in weights}
    model.load_state_dict(weights)


def parameter_groups(model: LDEQ, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay acts on weights, not on biases and norms."""
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine from 1 to `final_learning_rate`."""
    total = config.epochs * config.steps_per_epoch
    warm_up = max(1, round(config.warm_up * total))
    if step < warm_up:
        return (step + 1) / warm_up
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))
    return config.final_learning_rate + (1 - config.final_learning_rate) * cosine


def number_of_step(config: TrainingConfig, epoch: int, step: int) -> int:
    """Number of a step of an epoch in the whole run, from 0."""
    return epoch * config.steps_per_epoch + step
