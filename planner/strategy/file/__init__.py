"""The strategy file: what a plan is to everybody but the planner.

`load` reads and checks one, `dump` writes one; `capabilities` says what an executor can run. This package and what it
imports (ops with their records, layout, yaml_file, files, errors) are what the runtime takes from the planner, strict
reading included; none of it imports pydantic, networkx or torch.
"""

from ..errors import CommplanError, InputError, control_character, one_line
from ..executor_file import Capabilities, Impl, capabilities
from ..impl_rules import RESIDUAL_OUT
from ..layout import (
    DP_LOCAL,
    IN_BOUNDARIES,
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
from ..op_kinds import COLLECTIVES, INT8_ALL_REDUCE, KINDS, QUANTIZED_ALL_REDUCE
from ..op_record import OpKind, Rows, Send, Way
from ..ops import NONE, Op, numerics_rank
from ..words import FORWARD_MODES, GroupName, Numerics
from ..yaml_file import parse_json, read_mapping
from .document import (
    DeploymentStamp,
    HardwareStamp,
    LayerOps,
    ModelStamp,
    Predicted,
    RangePlan,
    StrategyFile,
    rival_line,
)
from .fingerprint import config_fingerprint
from .legality import Problem, places, problems, walk
from .reading import load, parse, read
from .writing import dump, plan_again, plan_hash, save

__all__ = [
    "COLLECTIVES",
    "DP_LOCAL",
    "FORWARD_MODES",
    "INT8_ALL_REDUCE",
    "IN_BOUNDARIES",
    "KINDS",
    "LAYER_BOUNDARIES",
    "NONE",
    "QUANTIZED_ALL_REDUCE",
    "REPLICATED",
    "RESIDUAL_OUT",
    "TENSOR_PARALLEL",
    "TOKEN_SHARDED",
    "Capabilities",
    "CommplanError",
    "DeploymentStamp",
    "GroupName",
    "HardwareStamp",
    "Impl",
    "InputError",
    "LayerOps",
    "LayerShape",
    "Layout",
    "ModelStamp",
    "Numerics",
    "Op",
    "OpKind",
    "Parallelism",
    "Predicted",
    "Problem",
    "RangePlan",
    "Rows",
    "Send",
    "State",
    "StrategyFile",
    "Way",
    "capabilities",
    "config_fingerprint",
    "control_character",
    "dump",
    "group_of",
    "is_finer",
    "load",
    "numerics_class",
    "numerics_rank",
    "one_line",
    "parse",
    "parse_json",
    "places",
    "plan_again",
    "plan_hash",
    "problems",
    "read",
    "read_mapping",
    "rival_line",
    "save",
    "sum_group",
    "walk",
]
