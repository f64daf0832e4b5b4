"""The arguments of a server as they are typed, held to a plan before anything is started.

SGLang resolves defaults that depend on the machine; its processes check what came of that (arguments.py). What is
written on the command line can be refused at once, by the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from commplan.planner.strategy.file import StrategyFile

from ...errors import RefusedError
from .arguments import check_arguments

# Other spellings that SGLang 0.5.23 takes. argparse also takes any beginning of a name that is unambiguous.
_ALIASES = {
    "tp": "tp_size",
    "tensor_parallel_size": "tp_size",
    "pp": "pp_size",
    "pipeline_parallel_size": "pp_size",
    "dp": "dp_size",
    "data_parallel_size": "dp_size",
    "ep": "ep_size",
    "expert_parallel_size": "ep_size",
    "model": "model_path",
}
_NUMBERS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("tp_size", "attn_dp_size", "ep_size", "pp_size", "dp_size", "nnodes"), (1, 2**16)),
    "max_running_requests": (1, 2**31),
    "chunked_prefill_size": (-1, 2**31),
    "max_prefill_tokens": (1, 2**31),
    "context_length": (1, 2**31),
    "port": (1, 2**16 - 1),
}
_DTYPES = {"half": "fp16", "float16": "fp16", "bfloat16": "bf16", "float": "fp32", "float32": "fp32"}
# What SGLang makes of several arguments together, or spells otherwise when it has resolved them.
_RESOLVED_LATER = ("flashinfer_allreduce_fusion_backend", "cuda_graph_config")


def check_line(file: StrategyFile, words: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The arguments by field; RefusedError at the first that the plan cannot live with, or that is no argument."""
    given = typed(words)
    for field, (least, most) in _NUMBERS.items():
        if field in given:
            given[field] = _number(field, given[field], least, most)
    planned = file.deployment.activations
    if _DTYPES.get(str(given.get("dtype")), planned) != planned:
        raise RefusedError(
            f"the plan is for activations in {planned}; leave --dtype out, or plan again with --set dtypes.activations",
            field="--dtype",
            value=given["dtype"],
        )
    check_arguments(file, _as_resolved(file, given), environment)
    return given


def typed(words: Sequence[str]) -> dict[str, Any]:
    """Fields to texts, lists of texts, or True for a bare flag. The last of several counts, as with argparse."""
    found: dict[str, list[str]] = {}
    field = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            field = name.replace("-", "_")
            field = _ALIASES.get(field, field)
            found[field] = [value] if equals else []
        elif not field:
            raise RefusedError("an argument of SGLang's begins with --", field="ARGUMENTS", value=word)
        else:
            found[field].append(word)
    return {name: values[0] if len(values) == 1 else values or True for name, values in found.items()}


def _number(field: str, value: object, least: int, most: int) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise RefusedError(
            f"a whole number from {least} to {most} is expected",
            field="--" + field.replace("_", "-"),
            value="nothing" if value is True else value,
        )
    return number


def _as_resolved(file: StrategyFile, given: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {*_RESOLVED_LATER, *(("dp_size",) if "enable_dp_attention" in given else ())}
    fields = {field: value for field, value in given.items() if field not in left_out}
    chunk = fields.get("chunked_prefill_size")
    if chunk is not None and chunk > 0:  # SGLang divides it by the number of DP groups
        fields["chunked_prefill_size"] = max(1, chunk // file.parallelism.attn_dp)
    return fields
