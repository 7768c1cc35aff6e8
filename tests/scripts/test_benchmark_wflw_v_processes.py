"""The video evaluation in two processes."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from script_results import read_results
from video_script import SCRIPT, arguments, assert_same_scores, settings_of

from evaluation.methods import methods_of
from evaluation.wflw_v import check_options
from models import load_checkpoint
from utils.errors import OptionError
from utils.processes import Process


def test_two_processes_share_out_the_clips_and_give_the_numbers_of_one_also_when_resumed(
    clips, network, evaluation, tmp_path
):
    assert evaluation(clips, "--compare", "--tuning_ids", "c", output=tmp_path / "one") == 0
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    options = ("--compare", "--tuning_ids", "c")
    command = [sys.executable, *torchrun, *arguments(clips, tmp_path / "two", network, *options)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=SCRIPT.parent)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("Avg (NME, NMJ)") == 1
    assert_same_scores(tmp_path / "two", tmp_path / "one")
    for name in ("a", "d"):
        (tmp_path / "two" / "predictions" / "rwr" / f"{name}.npz").unlink()
    process = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=300, cwd=SCRIPT.parent)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("2 of 4 clips are already done") == 1
    assert sorted(re.findall(r"^video (\w+) ", process.stdout, re.MULTILINE)) == ["a", "d"]
    assert_same_scores(tmp_path / "two", tmp_path / "one")
    one, two = (read_results(tmp_path / name)["comparison"]["methods"] for name in ("one", "two"))
    assert [method["nmj"] for method in two] == pytest.approx([method["nmj"] for method in one], rel=1e-5)


def test_clips_that_depend_on_each_other_are_not_shared_out(clips, network):
    process = Process(0, 2, torch.device("cpu"))
    options = settings_of("--rwr", "false", "--stop_rule", "batch")
    with pytest.raises(OptionError, match="--stop_rule batch: without RwR"):
        check_options(options, load_checkpoint(network), methods_of(options), process)
    alone = replace(options, WFLW_V_batch_size=1)
    check_options(alone, load_checkpoint(network), methods_of(alone), process)
