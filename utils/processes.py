"""Several processes under torchrun: joining them, gathering on the first, one error message for all of them."""

import os
import signal
import socket
from datetime import timedelta
from typing import Any, NamedTuple

import cv2
import torch
from torch import distributed

from utils.errors import UserError

LARGEST_PORT = 65_535

LONGEST_WAIT = timedelta(minutes=5)
"""How long a process waits at the start for the others."""

LONGEST_DIFFERENCE = timedelta(days=7)
"""How long a process that has done its part waits for the slowest; the default of PyTorch is 30 minutes or less."""


class Process(NamedTuple):
    """This process among the processes of torchrun.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        device: Device that this process uses.
    """

    rank: int
    world_size: int
    device: torch.device


def start_process(device: torch.device) -> Process:
    """Join the other processes of torchrun, if there are any; `leave` is the counterpart.

    Args:
        device: Kind of device to use; on CUDA every process takes the device of its local rank.

    Returns:
        This process; rank 0 of 1 without torchrun.

    Raises:
        UserError: If there are more processes than CUDA devices, or the environment is not that of torchrun.
    """
    if "RANK" not in os.environ:
        return Process(0, 1, device)
    backend = "gloo"
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.index >= torch.cuda.device_count():
            raise UserError(
                f"process {device.index} has no device: this machine has {torch.cuda.device_count()} CUDA devices; "
                "lower torchrun's --nproc_per_node"
            )
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    rank, size, port = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise UserError(f"RANK={rank} of WORLD_SIZE={size} is no process; start the script with torchrun")
    if not port.isdecimal() or int(port) > LARGEST_PORT:
        raise UserError(f"MASTER_PORT={port} is no port; start the script with torchrun")
    host = os.environ.get("MASTER_ADDR", "")
    try:
        # PyTorch would wait for such a host to appear.
        socket.getaddrinfo(host or None, int(port))
    except (OSError, UnicodeError) as error:
        raise UserError(f"MASTER_ADDR={host} is no host ({error}); start the script with torchrun") from error
    try:
        store, own_rank, count = next(distributed.rendezvous("env://", timeout=LONGEST_WAIT))
        distributed.init_process_group(
            backend, store=store, rank=own_rank, world_size=count, timeout=LONGEST_DIFFERENCE
        )
    except (ValueError, distributed.DistError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the processes cannot find each other at MASTER_ADDR={host}, MASTER_PORT={port} ({reason}); start them "
            "with torchrun"
        ) from error
    return Process(distributed.get_rank(), distributed.get_world_size(), device)


def leave() -> None:
    """Leave the group of processes, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def gather(part: Any, process: Process) -> list[Any] | None:
    """Collect an object of every process on the first process.

    Args:
        part: Anything that can be pickled.
        process: This process.

    Returns:
        On rank 0 the parts in the order of the ranks, on the others None.

    Raises:
        UserError: If another process has ended.
    """
    if process.world_size == 1:
        return [part]
    parts = [None] * process.world_size if process.rank == 0 else None
    try:
        distributed.gather_object(part, parts)
    except RuntimeError as error:
        raise UserError(f"another process has ended early ({str(error).splitlines()[0]})") from error
    return parts


def broadcast(value: Any, process: Process) -> Any:
    """Send an object of the first process to all of them.

    Args:
        value: Anything that can be pickled; only the value of the first process counts.
        process: This process.

    Raises:
        UserError: If another process has ended.
    """
    if process.world_size == 1:
        return value
    values = [value]
    try:
        distributed.broadcast_object_list(values)
    except RuntimeError as error:
        raise UserError(f"another process has ended early ({str(error).splitlines()[0]})") from error
    return values[0]


def is_first_report() -> bool:
    """Whether this is the first process of this torchrun to ask, so that a common error is reported once."""
    if not distributed.is_torchelastic_launched():
        return True
    store, _, _ = next(distributed.rendezvous("env://"))
    return store.add("reports", 1) == 1


def initialise_worker(worker_id: int) -> None:
    """`worker_init_fn` of a `DataLoader`: one thread for OpenCV, as for PyTorch; only the main process heeds Ctrl-C."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
