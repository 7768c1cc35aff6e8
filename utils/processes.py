"""Several processes under torchrun: joining them, gathering on the first, one error message from all of them."""

import os
import signal
from typing import Any, NamedTuple

import cv2
import torch
from torch import distributed

from utils.errors import UserError


class Process(NamedTuple):
    """This process among those that work together.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        device: Device that this process uses.
    """

    rank: int
    world_size: int
    device: torch.device


def start_process(device: torch.device) -> Process:
    """Join the other processes of torchrun, if there are any; `leave` parts them.

    Args:
        device: Kind of device to use; on CUDA every process takes the one of its local rank.

    Returns:
        This process; rank 0 of 1 without torchrun.

    Raises:
        UserError: If there are more processes than CUDA devices.
    """
    if "RANK" not in os.environ:
        return Process(0, 1, device)
    backend = "gloo"
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.index >= torch.cuda.device_count():
            raise UserError(
                f"process {device.index} finds no device of its own: this machine has {torch.cuda.device_count()} "
                "CUDA devices; lower torchrun's --nproc_per_node"
            )
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend)
    return Process(distributed.get_rank(), distributed.get_world_size(), device)


def leave() -> None:
    """Part from the other processes, if there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def gather(part: Any, process: Process) -> list[Any] | None:
    """Bring what every process has to the first.

    Args:
        part: Anything that can be pickled.
        process: This process.

    Returns:
        The parts in the order of the ranks on rank 0, None on the others.

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
    """What the first process has, on all of them.

    Args:
        value: Anything that can be pickled; of the first process, that of the others is left.
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
    """Whether no other process of this torchrun has asked this before; so an error that all meet is told once."""
    if not distributed.is_torchelastic_launched():
        return True
    store, _, _ = next(distributed.rendezvous("env://"))
    return store.add("reports", 1) == 1


def initialise_worker(worker_id: int) -> None:
    """`worker_init_fn` of a `DataLoader`: one thread for OpenCV, as PyTorch has; Ctrl-C is for the main process."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
