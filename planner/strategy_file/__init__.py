"""The strategy file: what a plan is to everybody but the planner.

`load` reads and checks one, `dump` writes one. This package and what it imports (ops, layout, yaml_file, errors) are
all that the runtime takes from the planner; none of it imports pydantic, networkx or torch.
"""

from .document import (
    DeploymentStamp,
    HardwareStamp,
    LayerOps,
    ModelStamp,
    Predicted,
    RangePlan,
    StrategyFile,
)
from .legality import Problem, problems
from .reading import load, parse, read
from .writing import dump, plan_hash, save

__all__ = [
    "DeploymentStamp",
    "HardwareStamp",
    "LayerOps",
    "ModelStamp",
    "Predicted",
    "Problem",
    "RangePlan",
    "StrategyFile",
    "dump",
    "load",
    "parse",
    "plan_hash",
    "problems",
    "read",
    "save",
]
