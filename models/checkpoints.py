"""Reading and writing networks: our own format, and that of the original release.

Ours is a safetensors file whose metadata hold the configuration as JSON. The original's is a pickled
{"args": argparse.Namespace, "state_dict": ...}; it is only ever unpickled with `weights_only=True`.
"""

import argparse
import hashlib
import json
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from models.config import LDEQConfig
from models.deq import GradientConfig
from models.ldeq import LDEQ
from solvers import AndersonConfig, BroydenConfig, FixedPointConfig, SolverConfig
from utils.errors import CheckpointError, InputError, OptionError, OutputError
from utils.files import write_bytes
from utils.reading import check_archive, check_file, read_bytes
from utils.safetensors_format import from_bytes, to_bytes
from utils.values import check_instance, check_value, shown_name, to_path

CONFIG_KEY = "ldeq_config"

CHECKSUM_KEY = "sha256"

STORED_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Floating-point types that a checkpoint can hold."""

ORIGINAL_FIELDS = (
    "n_keypoints",
    "cell_extra_latent_width",
    "z_width",
    "im_size",
    "heatmap_size",
    "injection_width",
    "cell_base_width",
    "cell_width_increment",
    "cell_gn_groups",
    "cell_norm",
    "cell_softargmax_beta",
    "cell_learn_softargmax_beta",
    "model_mode",
    "explicit_depth",
    "cell_use_bn_for_explicit",
    "solver",
    "max_iters",
    "stop_mode",
    "rel_diff_target",
    "abs_diff_target",
    "anderson_m",
    "anderson_lam",
    "anderson_beta",
    "take_one_less_inference_step",
    "stochastic_max_iters",
    "z0_mode",
    "cell_name",
    "JFB",
)

ORIGINAL_KINDS: dict[str, type] = {
    **dict.fromkeys(
        (
            "n_keypoints",
            "cell_extra_latent_width",
            "z_width",
            "im_size",
            "heatmap_size",
            "injection_width",
            "cell_base_width",
            "cell_width_increment",
            "cell_gn_groups",
            "explicit_depth",
            "max_iters",
            "anderson_m",
        ),
        int,
    ),
    **dict.fromkeys(
        ("cell_softargmax_beta", "rel_diff_target", "abs_diff_target", "anderson_lam", "anderson_beta"), float
    ),
    **dict.fromkeys(
        ("cell_learn_softargmax_beta", "cell_use_bn_for_explicit", "take_one_less_inference_step", "JFB"), bool
    ),
}
"""Types of the fields that are numbers or flags."""

# Original parameter name -> ours; the first pattern that matches the whole name counts.
ORIGINAL_NAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"tail\.0\.(.+)", r"backbone.block1.\1"),
        (r"tail\.1\.(.+)", r"backbone.block2.\1"),
        (r"tail\.3\.(.+)", r"backbone.block3.\1"),
        (r"deq_layer\.cell\.tail\.(.+)", r"cell.fuse.\1"),
        (r"deq_layer\.cell\.head\.conv\.(.+)", r"cell.head.\1"),
        (r"deq_layer\.cell\.hourglass\.bottlneck\.(.+)", r"cell.hourglass.bottleneck.\1"),
        *(
            (rf"deq_layer\.cell\.hourglass\.{original}{number}\.(.+)", rf"cell.hourglass.{ours}.\1")
            for level in range(4)
            for original, number, ours in (
                ("same", level + 1, f"down.{level}.same"),
                ("upchan", level + 1, f"down.{level}.widen"),
                ("downchan", 2 * level + 1, f"up.{level}.narrow"),
                ("downchan", 2 * level + 2, f"up.{level}.merge"),
                ("same", level + 5, f"up.{level}.refine"),
            )
        ),
    )
)


def load_checkpoint(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> LDEQ:
    """Read a network in our own format or in the original release's `.pth.tar` format, recognised by the content.

    A network in the original format runs as in the original's two scripts: with all its iterations, whatever its
    `stochastic_max_iters` is. Its stop rule is ours ("sample"); use `with_solver` for the original's ("batch").

    Args:
        path: the file.
        device: device of the network.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: If the file is missing, truncated, of another format or inconsistent; it is never half loaded.
        OptionError: If the path is not a path, or the device is not there.
    """
    path = to_path("path", path)
    check_instance("device", device, str | torch.device)
    try:
        check_file(path, "give a checkpoint")
        with path.open("rb") as file:
            head = file.read(9)
    except (OSError, InputError) as error:
        problem = f"{path}: the checkpoint cannot be read ({error.strerror})" if isinstance(error, OSError) else error
        raise CheckpointError(str(problem)) from error
    # A safetensors file is the length of its header in 8 bytes, then the header, which is JSON.
    config, weights = _read_own(path) if head[8:9] == b"{" else _read_original(path)
    # First without memory: a file may describe a network that is larger than any machine.
    with torch.device("meta"):
        expected = LDEQ(config).state_dict()
    _check_weights(path, weights, expected)
    model = LDEQ(config)
    model.load_state_dict(weights)
    model.source = path
    if str(device) == "meta":
        raise OptionError("device meta cannot be used (it holds no values); give cpu or another device")
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"device {device!s} cannot be used ({reason}); give cpu or another device") from error


def weights_digest(model: LDEQ) -> str:
    """SHA-256 in hexadecimal of the weights and the architecture of a network, without its solver."""
    # Fields with their default value are left out, so that a new field does not change the digest of older networks.
    default = LDEQConfig()
    # A solver of the caller's own has no name to write.
    config = replace(model.config, solver=default.solver, gradient=default.gradient, final_evaluation=True)
    form = {name: value for name, value in config.to_dict().items() if value != default.to_dict()[name]}
    digest = hashlib.sha256(json.dumps(form, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(model: LDEQ, path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
    """Write a network in our own format; after a failure an older file is intact.

    Args:
        model: the network.
        path: the file, usually `*.safetensors`.
        dtype: dtype of the stored floating-point weights, for example torch.float16 for half the size; None keeps it.

    Raises:
        OptionError: If the model or the path is of another type, the model is on the device "meta", or `dtype` is not
            a floating-point type that `load_checkpoint` reads.
        OutputError: If a weight is not finite or overflows `dtype`, or the file cannot be written.
    """
    check_instance("model", model, LDEQ)
    path = to_path("path", path)
    check_instance("dtype of a checkpoint", dtype, torch.dtype, optional=True)
    for name, tensor in model.state_dict().items():
        if tensor.is_meta:
            raise OptionError(
                f"model must hold values, but its weight {name} is on device meta; load the weights first"
            )
    if dtype is not None and dtype not in STORED_TYPES:
        names = ", ".join(str(kind) for kind in STORED_TYPES)
        raise OptionError(f"dtype of a checkpoint must be one of {names}, not {dtype}")
    weights = {
        name: (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in model.state_dict().items()
    }
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise OutputError(f"{path}: not written, because weight {name} has values that are not finite")
    config = json.dumps(model.config.to_dict())
    metadata = {"format": "pt", CONFIG_KEY: config, CHECKSUM_KEY: _checksum(config, weights)}
    write_bytes(path, to_bytes(weights, metadata), durable=True)


def _read_own(path: Path) -> tuple[LDEQConfig, dict[str, Tensor]]:
    try:
        # Half precision on disk, single precision in use.
        stored, metadata = from_bytes(read_bytes(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated or not a safetensors file ({error})") from error
    if CONFIG_KEY not in metadata:
        raise CheckpointError(f"{path}: a safetensors file without {CONFIG_KEY!r} in its metadata is not one of ours")
    for name, tensor in stored.items():
        _check_kind(path, name, tensor)
    # Files of earlier versions have no checksum.
    if metadata.get(CHECKSUM_KEY) not in (None, _checksum(metadata[CONFIG_KEY], stored)):
        raise CheckpointError(f"{path}: damaged, its content does not match its checksum; copy it again")
    weights = {name: _at_least_single(tensor) for name, tensor in stored.items()}
    try:
        config = LDEQConfig.from_dict(json.loads(metadata[CONFIG_KEY]))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be read ({error})") from error
    return config, weights


def _checksum(config: str, weights: dict[str, Tensor]) -> str:
    """SHA-256 in hexadecimal of what a file in our own format holds."""
    digest = hashlib.sha256(config.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_kind(path: Path, name: str, tensor: Tensor) -> None:
    """Check that a tensor is an ordinary one, with its own memory for every element."""
    known = (*STORED_TYPES, torch.int64)
    if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in known:
        raise CheckpointError(
            f"{path}: weight {name} is a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}; ordinary "
            "numbers are needed"
        )
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise CheckpointError(f"{path}: weight {name} claims {tensor.numel()} numbers, but the file has fewer")


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor


def _read_original(path: Path) -> tuple[LDEQConfig, dict[str, Tensor]]:
    try:
        check_archive(path)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    try:
        # An open file: torch.load would judge a path by its name.
        with path.open("rb") as file, warnings.catch_warnings(), safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds of error on other files
        foreign = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        problem = f"refused, because it names {foreign[1]}" if foreign else "truncated, or not a checkpoint"
        raise CheckpointError(f"{path}: {problem}; expected our own format or the original release's") from error
    if not isinstance(content, dict) or not {"args", "state_dict"} <= content.keys():
        raise CheckpointError(f"{path}: not a checkpoint of the original release, which holds 'args' and 'state_dict'")
    args, weights = content["args"], content["state_dict"]
    if not isinstance(args, argparse.Namespace):
        raise CheckpointError(f"{path}: 'args' is {type(args).__name__}, not argparse.Namespace")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: 'state_dict' is not a dictionary of tensors")
    for name, tensor in weights.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path}: 'state_dict' has a name that is {type(name).__name__}, not text")
        _check_kind(path, name, tensor)
    try:
        config = config_from_original(args)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return config, _rename(path, weights)


def config_from_original(args: argparse.Namespace) -> LDEQConfig:
    """The configuration that the `args` of an original checkpoint describe.

    Raises:
        ValueError: fields are missing or hold something unknown; unknown fields are ignored.
    """
    values = vars(args)
    missing = [name for name in ORIGINAL_FIELDS if name not in values]
    if missing:
        raise ValueError(f"'args' lacks {', '.join(missing)}")
    for name, kind in ORIGINAL_KINDS.items():
        check_value(name, values[name], kind)
    if args.cell_name != "Cell0" or args.z0_mode != "zeros":
        raise ValueError(f"cell_name {args.cell_name!r}, z0_mode {args.z0_mode!r}: only 'Cell0' and 'zeros' are known")
    if args.z_width != args.n_keypoints + args.cell_extra_latent_width:
        raise ValueError(f"z_width {args.z_width} is not n_keypoints + cell_extra_latent_width")
    # Any text: LDEQConfig checks it.
    normalisation: Any = "none" if args.cell_norm is None else str(args.cell_norm).lower()
    config = LDEQConfig(
        landmarks=args.n_keypoints,
        latent_channels=args.cell_extra_latent_width,
        image_size=args.im_size,
        backbone="stem",
        injection_channels=args.injection_width,
        cell_width=args.cell_base_width,
        cell_width_increment=args.cell_width_increment,
        cell_groups=args.cell_gn_groups,
        normalisation=normalisation,
        softargmax_beta=args.cell_softargmax_beta,
        softplus_beta=args.cell_learn_softargmax_beta,
        mode=args.model_mode,
        explicit_depth=args.explicit_depth,
        explicit_batch_norm=args.cell_use_bn_for_explicit,
        solver=_solver_from_original(args),
        final_evaluation=not args.take_one_less_inference_step,
        gradient=GradientConfig(rule="jfb" if args.JFB else "ift"),
    )
    if args.heatmap_size != config.heatmap_size:
        raise ValueError(f"heatmap_size {args.heatmap_size} is not a quarter of im_size {args.im_size}")
    return config


def _solver_from_original(args: argparse.Namespace) -> SolverConfig:
    """Budgets and candidates as in the original (its max_iters does not count the evaluations that fill a history)."""
    if args.stop_mode not in ("rel", "abs"):
        raise ValueError(f"unknown stop_mode {args.stop_mode!r}: 'rel' and 'abs' are known")
    relative = args.stop_mode == "rel"
    stop = {
        "criterion": "relative" if relative else "absolute",
        "tol": args.rel_diff_target if relative else args.abs_diff_target,
    }
    if args.solver == "anderson":
        return AndersonConfig(
            max_evals=args.max_iters + 2,
            min_evals=3,
            m=args.anderson_m,
            lam=args.anderson_lam,
            ridge="absolute",
            beta=args.anderson_beta,
            **stop,
        )
    if args.solver == "broyden":
        return BroydenConfig(max_evals=args.max_iters + 1, min_evals=2, memory=args.max_iters + 1, **stop)
    if args.solver == "fpi":
        return FixedPointConfig(max_evals=args.max_iters, **stop)
    raise ValueError(f"unknown solver {args.solver!r}: 'anderson', 'fpi' and 'broyden' are known")


def _rename(path: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed, extra = {}, []
    for name, tensor in weights.items():
        bare = name.removeprefix("module.")
        for pattern, replacement in ORIGINAL_NAMES:
            if match := pattern.fullmatch(bare):
                ours = match.expand(replacement)
                if ours in renamed:
                    raise CheckpointError(
                        f"{path}: weight {bare} is there twice, with the prefix 'module.' and without"
                    )
                renamed[ours] = tensor
                break
        else:
            extra.append(name)
    if extra:
        warnings.warn(f"{path}: ignored unknown weights {', '.join(map(shown_name, extra))}", stacklevel=4)
    return renamed


def _check_weights(path: Path, weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} weights are missing, the first: {missing[0]}")
    for name in sorted(weights.keys() - expected.keys()):
        raise CheckpointError(f"{path}: weight {name} is not part of the network that the file describes")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: weight {name} is {tuple(tensor.shape)}, the network needs {tuple(expected[name].shape)}"
            )
        # Checked in the network's dtype: a number that is finite in double precision may overflow in single precision.
        if not torch.isfinite(tensor.to(expected[name].dtype)).all():
            raise CheckpointError(f"{path}: weight {name} has values that are not finite")
