"""Server arguments that a plan cannot live with, found before anything is started.

Looks at resolved arguments alone (a mapping of field to value), so it needs no SGLang.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from commplan.planner.strategy.file import StrategyFile
from commplan.planner.strategy.vendors import BACKENDS

from ...errors import RefusedError
from ..captured_sizes import check_captured, check_within
from .words import DECODE_GRAPHS, ONE_SHOT, PREFILL_GRAPHS

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field that must keep one value: why another one breaks the plan, and the way out."""

    field: str
    wanted: object
    reason: str
    way_out: str


def _leave_out(field: str, reason: str) -> Conflict:
    return Conflict(field, False, reason, f"leave --{field.replace('_', '-')} out")


def _one(field: str, reason: str) -> Conflict:
    return Conflict(field, 1, reason, f"leave --{field.replace('_', '-')} out")


_OWN_SUM = "completes sums that the plan has given an op"
_OWN_LAYOUT = "lays rows out for whole forwards, around the ops that the plan has at single boundaries"
_OTHER_GROUP = "sums over other groups than the tp group that the plan speaks of"
_UNSEEN = "runs layers around the hooks that execute the plan"

CONFLICTS = (
    _leave_out("enable_quant_communications", f"{_OWN_SUM}, in INT8; the plan itself says where INT8 runs"),
    _leave_out("enable_layernorm_sp", _OWN_LAYOUT),
    _leave_out("enable_attn_tp_input_scattered", _OWN_LAYOUT),
    Conflict(
        "flashinfer_allreduce_fusion_backend",
        None,
        f"{_OWN_SUM}, up to 2048 tokens",
        "add --enforce-disable-flashinfer-allreduce-fusion",
    ),
    _leave_out("enable_aiter_allreduce_fusion", _OWN_SUM),
    _leave_out("enable_fused_moe_sum_all_reduce", _OWN_SUM),
    _leave_out("enable_mscclpp", "is another impl of the sums than the plan names"),
    _leave_out("enable_symm_mem", "is another impl of the sums than the plan names"),
    _leave_out("enable_torch_symm_mem", "is another impl of the sums than the plan names"),
    _leave_out("enable_two_batch_overlap", "splits a forward in two: its token count is no longer the plan's"),
    _leave_out("enable_single_batch_overlap", "overlaps the sums with experts, around the ops of the plan"),
    Conflict(
        "speculative_algorithm",
        None,
        "runs a draft model, which is a model of its own and has no section in the plan",
        "leave --speculative-algorithm out",
    ),
    _leave_out("enable_lora", "changes which tensors the sums run on; never tried under a plan"),
    _leave_out("enable_torch_compile", "traces the choice of an op into compiled code"),
    _leave_out("debug_cuda_graph", "runs the forward again in what stands for a replay, so that ops count twice"),
    _leave_out("enable_pdmux", "runs a prefill in slices of layers; never tried under a plan"),
    _leave_out("enable_nvidia_megakernel", _UNSEEN),
    _leave_out("enable_amd_monokernel", _UNSEEN),
    _leave_out("use_ray", "starts schedulers that the launcher cannot check"),
    _leave_out("encoder_only", "starts no decoder"),
    Conflict("dllm_algorithm", None, "denoises blocks: not a forward mode of the plan", "leave --dllm-algorithm out"),
    Conflict("elastic_ep_backend", None, "changes the groups while serving", "leave --elastic-ep-backend out"),
    Conflict(
        "moe_a2a_backend",
        "none",
        "completes the sum of the experts itself, so that mlp_out has none left to plan",
        "leave --moe-a2a-backend out",
    ),
    _one("pp_size", "gives a rank part of the layers; a plan is for all of them"),
    _one("dp_size", "starts several replicas; start one server for each, all with the same plan"),
    _one("attn_cp_size", _OTHER_GROUP),
    _one("dcp_size", _OTHER_GROUP),
    _one("moe_dp_size", _OTHER_GROUP),
    _one("dwdp_size", _OTHER_GROUP),
    Conflict("moe_dense_tp_size", None, _OTHER_GROUP, "leave --moe-dense-tp-size out"),
    Conflict("shared_experts_tp_size", None, _OTHER_GROUP, "leave --shared-experts-tp-size out"),
    _leave_out("enable_shared_experts_attn_tp", _OTHER_GROUP),
    _leave_out("enable_dense_mlp_attn_tp", _OTHER_GROUP),
    _leave_out("enable_prefill_cp", _OTHER_GROUP),
)
# Under a plan with attention DP.
ATTENTION_DP_CONFLICTS = (
    _leave_out("enable_dp_lm_head", "gathers no rows for the head, which the plan has at head_in"),
    _leave_out("enable_tp_lm_head_all_to_all", "brings logits back in another way than the rows were gathered"),
    _leave_out(
        "enable_dp_attention_local_control_broadcast",
        "lets DP groups take control requests at different times, and counts are gathered over all ranks at once",
    ),
    _leave_out("enable_mixed_chunk", "mixes modes in a batch of one DP group, which the others are not told"),
)
# Environment variables of SGLang that change sums or layouts without an argument.
VARIABLES = {
    "SGLANG_SHARED_EXPERT_TP1": "replicates shared experts and adds them after the sum",
    "SGLANG_USE_AG_AFTER_QLORA": "moves a gather behind the q_a projection",
    "SGLANG_ENABLE_EMBED_REPLICATION": "replicates the embedding, so that embed_out has no sum",
}
_OFF = ("", "0", "false", "no", "n", "off")


def check_arguments(file: StrategyFile, arguments: Arguments, environment: Mapping[str, str]) -> None:
    """Raises RefusedError at the first argument or variable that the plan cannot live with."""
    for error in conflicts(file, arguments, environment):
        raise error


def conflicts(file: StrategyFile, arguments: Arguments, environment: Mapping[str, str]) -> Iterator[RefusedError]:
    """Every conflict, most telling first."""
    yield from _parallelism(file, arguments)
    with_dp = ATTENTION_DP_CONFLICTS if file.parallelism.attn_dp > 1 else ()
    for conflict in (*CONFLICTS, *with_dp):
        value = arguments.get(conflict.field, conflict.wanted)
        if (value or None) != (conflict.wanted or None):
            yield RefusedError(f"{conflict.reason}; {conflict.way_out}", field=_flag(conflict.field), value=value)
    for name, reason in VARIABLES.items():
        value = environment.get(name, "")
        if value.lower() not in _OFF:
            yield RefusedError(f"{reason}; unset it", field=name, value=value)
    yield from _impls(file, arguments)
    yield from _graphs(file, arguments)
    yield from _token_counts(file, arguments)


def _parallelism(file: StrategyFile, arguments: Arguments) -> Iterator[RefusedError]:
    p = file.parallelism
    for field, planned in (("tp_size", p.tp), ("attn_dp_size", p.attn_dp), ("ep_size", p.ep)):
        value = arguments.get(field, 1)
        if value != planned:
            name = field.removesuffix("_size")
            yield RefusedError(
                f"the plan is for {name} {planned}; start with {_flag(field)} {planned}, or plan again with "
                f"--set parallelism.{name}={value}",
                field=_flag(field),
                value=value,
            )
    record = BACKENDS.get(file.hardware.backend)
    wanted = record.device_type if record else None
    device = str(arguments.get("device") or wanted).split(":")[0]
    if device != wanted:
        yield RefusedError(
            f"the plan's collectives run over {file.hardware.backend}, on {wanted}; plan again with `hardware:` set "
            "to this machine",
            field="--device",
            value=device,
        )


def _impls(file: StrategyFile, arguments: Arguments) -> Iterator[RefusedError]:
    if uses_impl(file, ONE_SHOT) and arguments.get("disable_custom_all_reduce"):
        yield RefusedError(
            "the plan has all_reduce by custom_one_shot; leave --disable-custom-all-reduce out",
            field="--disable-custom-all-reduce",
            value=True,
        )


def _graphs(file: StrategyFile, arguments: Arguments) -> Iterator[RefusedError]:
    """`cuda_graph_config`: a mapping of phase to backend and captured sizes."""
    phases = arguments.get("cuda_graph_config") or {}
    backends = {phase: (phases.get(phase) or {}).get("backend", "disabled") for phase in ("prefill", "decode")}
    captures = [phase for phase, backend in backends.items() if backend != "disabled"]
    if captures and file.parallelism.attn_dp > 1:
        yield RefusedError(
            "a graph under attention DP pads every group to one size; never run under a plan: add --disable-cuda-graph",
            field=f"--cuda-graph-backend-{captures[0]}",
            value=backends[captures[0]],
        )
        return
    if "prefill" in captures:
        yield from _prefill_graphs(file, arguments, phases["prefill"])
    if "decode" in captures:
        yield from _refusal_of(check_captured, file, phases["decode"].get("bs") or (), DECODE_GRAPHS)


def _prefill_graphs(file: StrategyFile, arguments: Arguments, phase: Arguments) -> Iterator[RefusedError]:
    """Graphs of segments between attention are known; no others, and none that serves two modes."""
    if phase["backend"] != "breakable":
        yield RefusedError(
            "is another way to capture a prefill than the one that was read (breakable); never run under a plan: leave "
            "--cuda-graph-backend-prefill out, or add --disable-prefill-cuda-graph",
            field="--cuda-graph-backend-prefill",
            value=phase["backend"],
        )
        return
    if arguments.get("enable_mixed_chunk"):
        yield RefusedError(
            "a mixed batch would replay the graph of a prefill, and the plan may have other ops for it; add "
            "--disable-prefill-cuda-graph, or leave --enable-mixed-chunk out",
            field="--enable-mixed-chunk",
            value=True,
        )
    sizes = phase.get("bs") or ()
    yield from _refusal_of(check_within, file, sizes, PREFILL_GRAPHS)
    yield from _refusal_of(check_captured, file, sizes, PREFILL_GRAPHS)


def _refusal_of(check: Callable[..., None], *arguments: object) -> Iterator[RefusedError]:
    try:
        check(*arguments)
    except RefusedError as error:
        yield error


def _token_counts(file: StrategyFile, arguments: Arguments) -> Iterator[RefusedError]:
    """The server must not be able to form a batch that the plan has no range for."""
    needed = {"prefill": longest_prefill(arguments), "decode": arguments.get("max_running_requests")}
    if arguments.get("disaggregation_mode") == "prefill":
        del needed["decode"]
    if file.parallelism.attn_dp > 1:
        needed = _over_groups(file, needed)
    elif arguments.get("enable_mixed_chunk"):
        needed["mixed"] = longest_prefill(arguments)
    for mode, most in needed.items():
        yield from _missing_counts(file, mode, most)


def _over_groups(file: StrategyFile, needed: Mapping[str, int | None]) -> dict[str, int | None]:
    """Tokens of all DP groups, each padded to the largest. SGLang states prefill by group, requests over all; beside a
    group that prefills, another may decode."""
    running = needed.get("decode")
    each = None if running is None else max(1, running // file.parallelism.attn_dp)
    prefill = needed["prefill"]
    longest = None if prefill is None or each is None else max(prefill, each)
    by_group = {"prefill": longest} | ({"decode": each} if "decode" in needed else {})
    return {mode: None if rows is None else _padded(file, rows) for mode, rows in by_group.items()}


def _padded(file: StrategyFile, rows: int) -> int:
    """Tokens of a forward whose largest DP group brings this many rows."""
    p = file.parallelism
    return rows if p.attn_dp == 1 else p.tp * -(-rows // p.attn_tp)


def check_running(file: StrategyFile, most: int) -> None:
    """`most`: requests that a scheduler, of a DP group where there are several, has made room for."""
    decode = file.modes.get("decode")
    if decode is not None and _padded(file, most) > decode[-1].last:
        raise RefusedError(
            f"the plan ends at {decode[-1].last} decode tokens; start with --max-running-requests "
            f"{most_requests(file)}",
            field="--max-running-requests",
            value=most,
        )


def most_requests(file: StrategyFile) -> int:
    """Requests over all DP groups for which the plan has decode tokens: whole shards with attention DP."""
    last, p = file.modes["decode"][-1].last, file.parallelism
    return last if p.attn_dp == 1 else last // p.tp * p.tp


def longest_chunk(file: StrategyFile) -> int:
    """--chunked-prefill-size for which the plan has prefill tokens; SGLang divides it by the number of DP groups."""
    last, p = file.modes["prefill"][-1].last, file.parallelism
    if "mixed" in file.modes and p.attn_dp == 1:
        last = min(last, file.modes["mixed"][-1].last)
    return last if p.attn_dp == 1 else last // p.tp * p.tp


_LIMITS = {
    "prefill": "--chunked-prefill-size",
    "mixed": "--chunked-prefill-size",
    "decode": "--max-running-requests",
}


def _missing_counts(file: StrategyFile, mode: str, most: int | None) -> Iterator[RefusedError]:
    ranges = file.modes.get(mode)
    if ranges is None:
        extra = ", or leave --enable-mixed-chunk out" if mode == "mixed" else ""
        yield RefusedError(
            f"the server runs {mode} forwards and the plan has no section for them; plan again with modes.{mode}"
            + extra,
            field="modes",
            value=", ".join(file.modes),
        )
        return
    if ranges[0].first > 1:
        yield RefusedError(
            f"the server runs {mode} forwards from 1 token on; plan again with modes.{mode}.tokens=[1, "
            f"{ranges[-1].last}]",
            field=f"modes.{mode}",
            value=ranges[0].first,
        )
    if most is not None and most > ranges[-1].last:
        limit = most_requests(file) if mode == "decode" else longest_chunk(file)
        yield RefusedError(
            f"the plan ends at {ranges[-1].last} {mode} tokens; start with {_LIMITS[mode]} {limit}, or plan "
            f"again with --set 'modes.{mode}.tokens=[1, {most}]'",
            field=_LIMITS[mode],
            value=most,
        )


def longest_prefill(arguments: Arguments) -> int | None:
    """Most tokens in one prefill; None where the arguments do not say."""
    chunk = arguments.get("chunked_prefill_size")
    if chunk is not None and chunk > 0:
        return int(chunk)
    context = arguments.get("context_length")
    batch = arguments.get("max_prefill_tokens")
    return None if context is None or batch is None else max(int(context), int(batch))


def uses_impl(file: StrategyFile, impl: str) -> bool:
    """True if an op of the plan names this impl."""
    return any(
        op.impl == impl
        for ranges in file.modes.values()
        for plan in ranges
        for op in {plan.embed_out, *(layer.at(b) for layer in plan.layers for b in ("attn_out", "mlp_out"))}
    )


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")
