import socket
from datetime import timedelta

import pytest
import torch
from torch.distributed import TCPStore

from utils import processes
from utils.errors import UserError
from utils.processes import Process, gather, is_first_report, start_process


def test_without_torchrun_there_is_one_process_that_keeps_its_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    assert start_process(torch.device("cpu")) == Process(0, 1, torch.device("cpu"))


def test_a_single_process_gathers_its_own_part():
    assert gather("part", Process(0, 1, torch.device("cpu"))) == ["part"]


def test_without_torchrun_every_report_is_the_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert is_first_report()
    assert is_first_report()


def test_under_torchrun_only_one_report_is_the_first(monkeypatch: pytest.MonkeyPatch):
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    environment = {
        "TORCHELASTIC_RUN_ID": "run",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": "2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    reports = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        reports.append(is_first_report())
    assert reports == [True, False]


def test_more_processes_than_cuda_devices_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="2 CUDA devices; lower torchrun's --nproc_per_node"):
        start_process(torch.device("cuda"))


@pytest.mark.parametrize(
    ("rank", "size"), [("first", "2"), ("2", "2"), ("5", "2"), ("-1", "2"), ("0", "-1"), ("0", "")]
)
def test_an_environment_that_is_not_that_of_torchrun_is_said_so(rank: str, size: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UserError, match=f"RANK={rank} of WORLD_SIZE={size} .*torchrun"):
        start_process(torch.device("cpu"))


def test_a_host_that_does_not_exist_is_named_at_once(monkeypatch: pytest.MonkeyPatch):
    host = "no-such-host.invalid"
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", host), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"MASTER_ADDR={host} is no host"):
        start_process(torch.device("cpu"))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_without_the_others_ends_in_time_and_names_the_place(rank: str, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port)):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "LONGEST_WAIT", timedelta(seconds=1))
    with pytest.raises(UserError, match=f"cannot find each other at MASTER_ADDR=127.0.0.1, MASTER_PORT={port}"):
        start_process(torch.device("cpu"))


def test_a_wrong_port_is_named(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", "abc")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="MASTER_PORT=abc is no port"):
        start_process(torch.device("cpu"))
