"""Fixed-point solvers under one contract: `solve(f, z0, config, args=()) -> Solution`."""

from dataclasses import fields
from typing import Any

from solvers.anderson import AndersonConfig
from solvers.broyden import BroydenConfig
from solvers.contract import Solution, SolverConfig, Status
from solvers.fixed_point import FixedPointConfig
from solvers.solve import solve

SOLVERS: dict[str, type[SolverConfig]] = {
    "fixed_point": FixedPointConfig,
    "anderson": AndersonConfig,
    "broyden": BroydenConfig,
}


def solver_config(name: str, **options: Any) -> SolverConfig:
    """The configuration of a solver by name, for files and command lines.

    Raises:
        ValueError: If the solver or an option is unknown; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; known: {', '.join(SOLVERS)}")
    known = [field.name for field in fields(SOLVERS[name])]
    for option in options:
        if option not in known:
            raise ValueError(f"unknown option {option!r} of solver {name!r}; known: {', '.join(known)}")
    return SOLVERS[name](**options)


__all__ = [
    "SOLVERS",
    "AndersonConfig",
    "BroydenConfig",
    "FixedPointConfig",
    "Solution",
    "SolverConfig",
    "Status",
    "solve",
    "solver_config",
]
