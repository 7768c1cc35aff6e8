"""The house: which room may import which, how long a file may be, and what a script may load before it has parsed."""

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

GROUND = {"datasets", "utils"}

MAY_IMPORT = {
    "utils": set(),
    "solvers": set(),
    "datasets": {"utils"},
    "models": {"solvers", "utils"},
    "inference": {"models", "solvers", "utils"},
    "evaluation": {"inference", "models", "solvers", *GROUND},
    "training": {"inference", "models", "solvers", *GROUND},
}
"""The arrows between the rooms; scripts and benchmarks may import every room."""

SCRIPTS = (
    "demo.py",
    "export.py",
    "test_LDEQ_WFLW.py",
    "test_LDEQ_WFLW_V.py",
    "train_LDEQ_WFLW.py",
    "utils/download_WFLW_V.py",
)

SLOW = {"torch", "numpy", "cv2", "matplotlib", "pandas", "scipy", "av", "yt_dlp"}

LONGEST_FILE, LONGEST_SCRIPT = 400, 200


@cache
def every_file() -> dict[str, str]:
    """The text of every Python file, tests included, by its path."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = listed.splitlines() or [
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if ".venv" not in str(path)
    ]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names if (ROOT / name).exists()}


@cache
def sources() -> dict[str, str]:
    """The text of every Python file but the tests, by its path."""
    return {name: text for name, text in every_file().items() if not name.startswith("tests/")}


@cache
def imports(name: str) -> frozenset[str]:
    """The modules of this repository that a file imports anywhere, as paths."""
    wanted: set[str] = set()
    tree = ast.parse(sources()[name])
    # What a module does when it is run is no import of the module.
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if __name__ == '__main__':")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute here"
            # What is imported from a package may be a module or a name in it.
            wanted |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(path for module in wanted for path in _paths(module) if path in sources() and path != name)


def _paths(module: str) -> tuple[str, str]:
    path = module.replace(".", "/")
    return f"{path}.py", f"{path}/__init__.py"


def room(name: str) -> str:
    return name.split("/")[0] if "/" in name else "scripts"


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_a_room_imports_only_the_rooms_below_it(name: str):
    allowed = MAY_IMPORT[name] | {name}
    wrong = [
        f"{path} imports {target}"
        for path in sources()
        if room(path) == name
        for target in imports(path)
        if room(target) not in allowed
    ]
    assert wrong == []


def test_every_room_has_its_arrows():
    assert {room(path) for path in sources()} - {"scripts", "benchmarks"} == set(MAY_IMPORT)


def test_no_module_imports_itself_in_a_circle():
    # A package whose __init__ gathers names from its own modules is no circle.
    graph = {
        path: {target for target in imports(path) if not target.endswith("__init__.py")}
        for path in sources()
        if not path.endswith("__init__.py")
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_file_is_too_long_to_be_read_in_one_go():
    lengths = {path: len(text.splitlines()) for path, text in every_file().items()}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_scripts_are_thin():
    lengths = {path: len(sources()[path].splitlines()) for path in SCRIPTS}
    assert {path: length for path, length in lengths.items() if length >= LONGEST_SCRIPT} == {}


def test_no_room_is_a_quarter_of_the_house():
    lengths: Counter[str] = Counter()
    for path, text in sources().items():
        lengths[room(path)] += len(text.splitlines())
    shares = {name: length / lengths.total() for name, length in lengths.items()}
    assert {name: share for name, share in shares.items() if share >= 0.25} == {}


LOADED_BY = """
import runpy, sys
script = sys.argv[0] = sys.argv.pop(1)
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    print(end.code, sorted(set(sys.modules) & {slow}), file=sys.stderr)
"""


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("option", "status"), [("--help", 0), ("--no_such_option", 2)])
def test_a_script_answers_before_it_loads_anything_slow(script: str, option: str, status: int):
    command = [sys.executable, "-c", LOADED_BY.replace("{slow}", repr(SLOW)), script, option]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stderr.splitlines()[-1] == f"{status} []"


def test_the_summary_of_a_network_warns_of_nothing():
    command = [sys.executable, "-W", "error", "-m", "models.ldeq", "--summary", "--preset", "mini"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "LDEQ" in ended.stdout
