"""The names that command lines offer are those of the registries, and offering them loads nothing slow."""

import subprocess
import sys
from typing import get_args

from inference import options
from inference.engines import EngineName, Precision
from models.rwr import VARIANTS
from solvers import SOLVERS
from solvers.contract import StopRule
from utils.crops import CROP_RULES


def test_the_names_are_those_of_the_registries():
    assert tuple(SOLVERS) == options.SOLVERS
    assert get_args(StopRule) == options.STOP_RULES
    assert tuple(VARIANTS) == options.RWR_VARIANTS
    assert tuple(CROP_RULES) == options.CROPS
    assert get_args(EngineName) == options.ENGINES
    assert get_args(Precision) == options.PRECISIONS


def test_the_names_are_known_without_torch_numpy_cv2_and_matplotlib():
    program = "import inference.options, sys; print({'torch', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"
