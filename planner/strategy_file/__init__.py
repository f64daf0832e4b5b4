"""The strategy file: what a plan is to everybody but the planner.

`load` reads and checks one, `dump` writes one. This package and what it imports (ops, layout, yaml_file, errors) are
all that the runtime takes from the planner; none of it imports pydantic, networkx or torch.
"""

from ..errors import CommplanError, InputError
from ..layout import (
    DP_LOCAL,
    FORWARD_MODES,
    LAYER_BOUNDARIES,
    REPLICATED,
    TENSOR_PARALLEL,
    TOKEN_SHARDED,
    LayerShape,
    Layout,
    Parallelism,
    State,
    group_of,
    is_finer,
    numerics_class,
    sum_group,
)
from ..ops import Op, numerics_rank
from ..yaml_file import read_mapping
from .document import (
    DeploymentStamp,
    HardwareStamp,
    LayerOps,
    ModelStamp,
    Predicted,
    RangePlan,
    StrategyFile,
)
from .fingerprint import config_fingerprint
from .legality import Problem, places, problems, walk
from .reading import load, parse, read
from .writing import dump, plan_hash, save

__all__ = [
    "DP_LOCAL",
    "FORWARD_MODES",
    "LAYER_BOUNDARIES",
    "REPLICATED",
    "TENSOR_PARALLEL",
    "TOKEN_SHARDED",
    "CommplanError",
    "DeploymentStamp",
    "HardwareStamp",
    "InputError",
    "LayerOps",
    "LayerShape",
    "Layout",
    "ModelStamp",
    "Op",
    "Parallelism",
    "Predicted",
    "Problem",
    "RangePlan",
    "State",
    "StrategyFile",
    "config_fingerprint",
    "dump",
    "group_of",
    "is_finer",
    "load",
    "numerics_class",
    "numerics_rank",
    "parse",
    "places",
    "plan_hash",
    "problems",
    "read",
    "read_mapping",
    "save",
    "sum_group",
    "walk",
]
