"""What the benchmarks share: times in turn, peak memory, the line that says what machine it was, tables.

Free of torch until something is measured, so that a benchmark answers `--help` and a wrong option at once.
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

from utils.command_line import positive_integer

if TYPE_CHECKING:
    import pandas as pd
    import torch

# Those that networks gain from, as /proc/cpuinfo names them.
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "asimddp", "bf16")

Value = TypeVar("Value")


def add_measuring_options(parser: argparse.ArgumentParser, repeats: int, table: str | None = None) -> None:
    """Let a command line say how often is measured, and where the table goes.

    Args:
        parser: of the benchmark.
        repeats: the default.
        table: name of the table's file; None for a benchmark that writes none.
    """
    parser.add_argument(
        "--repeats", type=positive_integer, default=repeats, help="every value is the median of so many (%(default)s)"
    )
    if table:
        parser.add_argument("--output_folder", type=Path, help=f"write {table} there")


def machine(device: torch.device | None = None) -> str:
    """One line: processor, cores, threads, instruction sets, versions, and the accelerator that is used, if one is."""
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
    """As the system names it."""
    for line in _cpu_info():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """Those of INSTRUCTION_SETS that the processor has; empty where the system does not say."""
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
    """Times of several calls, made in turn, so that whatever else the machine does falls on all of them.

    Args:
        actions: calls by name.
        repeats: how often each is made, after one call of each that is not counted.
        device: what is waited for after every call.

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
    """Median time of a call after one that is not counted."""
    return statistics.median(milliseconds_in_turn({"": action}, repeats, device)[""])


def synchronise(device: torch.device) -> None:
    """Wait until an accelerator has done what it was told."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)


def median_ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios of what was measured in turn."""
    return statistics.median(value / other for value, other in zip(values, reference, strict=True))


def in_new_process(function: Callable[..., Value], *args: Any) -> Value:
    """Call a function where no earlier measurement has left memory."""
    # glibc then returns every tensor's memory when it is freed, so that the peak is that of live tensors.
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
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)
