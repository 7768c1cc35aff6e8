"""Shared parts of the benchmarks: interleaved times, peak memory, a line that describes the machine, tables.

Torch is only loaded for a measurement, so that a benchmark answers `--help` and a wrong option at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from utils.command_line import given_path, positive_integer
from utils.files import prepare_output_folder, write_text

if TYPE_CHECKING:
    import pandas as pd
    import torch

# Instruction sets that speed up networks, by their names in /proc/cpuinfo.
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "asimddp", "bf16")

Value = TypeVar("Value")


def add_measuring_options(parser: argparse.ArgumentParser, repeats: int, table: str | None = None) -> None:
    """Add the options for the number of measurements and the folder of the table.

    Args:
        parser: of the benchmark.
        repeats: the default.
        table: name of the table's file; None for a benchmark that writes none.
    """
    parser.add_argument(
        "--repeats",
        type=positive_integer,
        default=repeats,
        help="measurements per value; the median counts (%(default)s)",
    )
    if table:
        parser.add_argument("--output_folder", type=given_path, help=f"folder for {table}")


def machine(device: torch.device | None = None) -> str:
    """One line: processor, cores, threads, instruction sets, versions, and the accelerator if one is used."""
    import torch

    words = [
        processor_name(),
        f"{os.cpu_count()} cores",
        f"{torch.get_num_threads()} threads",
        " ".join(instruction_sets()) or "instruction sets unknown",
        f"PyTorch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()})",
        f"Python {platform.python_version()}",
    ]
    if device is not None and device.type == "cuda":
        words.append(f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    elif device is not None and device.type != "cpu":
        words.append(device.type)
    return "; ".join(words)


def processor_name() -> str:
    """The system's name of the processor."""
    for line in _cpu_info():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The members of INSTRUCTION_SETS that the processor has; empty if the system does not say."""
    for line in _cpu_info():
        if line.startswith(("flags", "Features")):
            there = set(line.partition(":")[2].split())
            return [name for name in INSTRUCTION_SETS if name in there]
    return []


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def milliseconds_in_turn(
    actions: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Times of several calls, made in turn, so that other load on the machine affects all of them.

    Args:
        actions: calls by name.
        repeats: number of calls of each, after one call of each that is not counted.
        device: the device to wait for after every call.

    Returns:
        `repeats` times for each name.
    """
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats + 1):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            synchronise(device)
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: values[1:] for name, values in times.items()}


def milliseconds(action: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median time of a call, after one call that is not counted."""
    return statistics.median(milliseconds_in_turn({"": action}, repeats, device)[""])


def synchronise(device: torch.device) -> None:
    """Wait until an accelerator has finished its work."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)


def median_ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios of values that were measured in turn."""
    return statistics.median(value / other for value, other in zip(values, reference, strict=True))


def in_new_process(function: Callable[..., Value], *args: Any) -> Value:
    """Call a function in a new process, without memory of earlier measurements."""
    # With this setting glibc returns every freed tensor's memory, so that the peak is that of live tensors.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def peak_growth(action: Callable[[], object], device: torch.device) -> int:
    """Bytes by which a call raises the peak: of the allocator on CUDA, else of this process's resident memory."""
    before = process_peak()
    action()
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return process_peak() - before


def process_peak() -> int:
    """Peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def report(table: pd.DataFrame, device: torch.device | None, path: Path | None = None) -> None:
    """Print the machine and a table, and write the table where asked."""
    print(machine(device))
    print(table.to_string(index=False, float_format="{:.4g}".format))
    if path:
        prepare_output_folder(path.parent)
        write_text(path, table.to_csv(index=False))
