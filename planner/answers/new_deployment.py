"""A deployment file from a model and a machine: the split from what fits, the rest usual values with what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..descriptions.deployment import DEPLOYMENT_SCHEMA
from ..descriptions.loader import find, load_hardware, load_model, setup_of
from ..descriptions.model import Model
from ..descriptions.setup import Setup
from ..descriptions.weight_types import WEIGHT_TYPES
from ..executors import executor_names
from ..fit.sizing import Sized, sizes, smallest
from ..search.planning import ModePlanner
from ..strategy.errors import InputError, NoLegalPlanError
from ..strategy.words import MOE_BACKENDS, NUMERICS_CLASSES
from ..strategy.yaml_file import read_mapping, scalar_text

_SERVED, _PLANNED = "sglang", "plan_only"
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "bf16"}  # servers load fp32 checkpoints in 16 bits


@dataclass(frozen=True)
class Wish:
    """What a deployment is for; None leaves the choice to what fits.

    model, hardware  as the file will name them
    prefill_tokens   the largest forward of prefill
    requests         that decode together
    """

    model: str
    hardware: str
    executor: str | None = None
    tp: int | None = None
    weights: str | None = None
    prefill_tokens: int = 16384
    prompt_tokens: int = 4096
    requests: int = 256
    context_tokens: int = 4096


@dataclass(frozen=True)
class NewDeployment:
    """A deployment that loads: its fields, the setup that they make, and why each choice was made, by field."""

    fields: dict[str, Any]
    sized: Sized
    reasons: Mapping[str, str]

    def text(self, name: str) -> str:
        """The file, every key with what it means."""
        return _text({**self.fields, "name": name}, self.sized.setup.model, self.reasons)


def new_deployment(wish: Wish, file: str) -> NewDeployment:
    """The deployment that a wish makes in `file`; raises InputError or DoesNotFitError where there is none."""
    model = load_model(wish.model, file)
    weights, activations, why = _dtypes(wish, model, file)
    hardware = load_hardware(wish.hardware, file)
    tps = [wish.tp] if wish.tp is not None else sizes(hardware.num_devices, hardware.devices_per_node)
    fields: dict[str, Any] = {
        "schema": DEPLOYMENT_SCHEMA,
        "name": "new",
        "model": wish.model,
        "hardware": wish.hardware,
        "dtypes": {"weights": weights, "activations": activations, "kv_cache": activations},
        "modes": {
            "prefill": {"tokens": [1, wish.prefill_tokens], "sequence_tokens": wish.prompt_tokens, "prefix_tokens": 0},
            "decode": {"tokens": [1, wish.requests], "context_tokens": wish.context_tokens},
        },
    }
    executor, sized = _sized(wish, model, fields, tps, file)
    p = sized.setup.deployment.parallelism
    fields |= {"executor": executor, "parallelism": p.model_dump()}
    reasons = {"weights": why, "tp": "as given" if wish.tp is not None else _why_tp(sized, tps)}
    for mode, most in sized.fit.most_tokens.items():
        fields["modes"][mode]["tokens"] = [1, most]
        reasons[mode] = "what the KV cache has room for"
    setup = setup_of(fields, file)
    return NewDeployment(fields, Sized(setup, sized.fit), reasons)


def _sized(wish: Wish, model: Model, fields: dict[str, Any], tps: list[int], file: str) -> tuple[str, Sized]:
    """Who runs it: the server where it can, else nobody; and how it is split."""
    executors = [wish.executor] if wish.executor is not None else [_SERVED, _PLANNED]
    for executor in executors:

        def setup_at(tp: int, ep: int, executor: str = executor) -> Setup:
            return setup_of({**fields, "executor": executor, "parallelism": {"tp": tp, "ep": ep}}, file)

        try:
            sized = smallest(model, tps, setup_at)
            _check_plannable(sized.setup)
        except (InputError, NoLegalPlanError):
            if executor == executors[-1]:
                raise
        else:
            return executor, sized
    raise AssertionError("there is an executor")


def _check_plannable(setup: Setup) -> None:
    """Raise NoLegalPlanError where the executor has no op for some boundary on this machine."""
    for mode in setup.deployment.modes:
        try:
            ModePlanner(setup, mode).graph()
        except NoLegalPlanError as error:
            raise error.in_file(setup.file) from None


def _why_tp(sized: Sized, tps: list[int]) -> str:
    if sized.fit.fits:
        return f"the smallest of {', '.join(map(str, tps))} that holds weights and KV cache"
    return f"of {', '.join(map(str, tps))} the one with most room for KV cache"


def _dtypes(wish: Wish, model: Model, file: str) -> tuple[str, str, str]:
    """Types of weights and activations, and why."""
    stored = _stored(wish.model, file)
    if wish.weights is not None:
        return wish.weights, stored, "as given"
    if model.quantization is not None:
        return model.quantization.weights, stored, "of the checkpoint's quantization_config"
    return stored, stored, "the checkpoint is not quantised"


def _stored(model: str, file: str) -> str:
    """The type that a config.json names; bf16 where it names none, or for a model file."""
    data = read_mapping(find(model, "models", file, "model"))
    inner = data.get("text_config")
    for section in (data, inner if isinstance(inner, dict) else {}):
        for key in ("dtype", "torch_dtype"):
            if isinstance(named := section.get(key), str) and named in _DTYPES:
                return _DTYPES[named]
    return "bf16"


# ---- the file --------------------------------------------------------------------------------------------------------


def _text(fields: Mapping[str, Any], model: Model, reasons: Mapping[str, str]) -> str:
    p, dtypes, modes = fields["parallelism"], fields["dtypes"], fields["modes"]
    prefill, decode = modes["prefill"], modes["decode"]
    rows: list[tuple[str, str]] = [
        (f"schema: {fields['schema']}", ""),
        (f"name: {scalar_text(fields['name'])}", ""),
        (f"model: {scalar_text(fields['model'])}", "preset, model file, config.json, its folder, or a cached Hub name"),
        ("model_role: target", "target | draft"),
        (f"hardware: {scalar_text(fields['hardware'])}", "preset or hardware file"),
        (f"executor: {fields['executor']}", f"{' | '.join(executor_names())}: who runs the plan"),
        ("parallelism:", ""),
        (f"  tp: {p['tp']}", f"ranks that share every layer; {reasons['tp']}"),
        (f"  attn_dp: {p['attn_dp']}", "groups of them that each attend to requests of their own"),
        (f"  pp: {p.get('pp', 1)}", "stages that the layers are divided over, each of tp ranks"),
        (f"  ep: {p['ep']}", "groups of them that each hold some of the experts"),
        (f"  moe_backend: {p['moe_backend']}", " | ".join(MOE_BACKENDS)),
        ("dtypes:", ""),
        (f"  weights: {dtypes['weights']}", f"{reasons['weights']}; {' | '.join(WEIGHT_TYPES)}"),
        (f"  activations: {dtypes['activations']}", "what travels between devices; fp32 | bf16 | fp16"),
        (f"  kv_cache: {dtypes['kv_cache']}", "fp32 | bf16 | fp16 | fp8 | int8"),
        ("modes:", "the work: change it to yours"),
        ("  prefill:", ""),
        (f"    tokens: {prefill['tokens']}", f"rows of one forward over all ranks{_because(reasons, 'prefill')}"),
        (f"    sequence_tokens: {prefill['sequence_tokens']}", "new tokens of a request"),
        (f"    prefix_tokens: {prefill['prefix_tokens']}", "tokens of a request that are cached already"),
        ("  decode:", ""),
        (f"    tokens: {decode['tokens']}", f"requests that decode together{_because(reasons, 'decode')}"),
        (f"    context_tokens: {decode['context_tokens']}", "cached tokens of each"),
        ("numerics:", ""),
        ("  loosest: reordered", f"{' | '.join(NUMERICS_CLASSES)}; quantized allows INT8 sums"),
        ("  error_budget: null", "with quantized: the relative error that all of them may add up to, as in 0.02"),
        ("  perplexity_budget: null", "or the relative rise of perplexity, as in 0.005, with a measured sensitivity"),
        (
            "  outlier_ratio: null",
            "largest value of a row of partial sums over its RMS, as in 30; null: rows are normal",
        ),
        ("  wire_formats: [int8]", "formats that quantised sums may travel in, as in [int8, fp8_e4m3]"),
        ("  ranks_may_differ: false", "true allows sums that leave the ranks with different values"),
        ("  accumulation: any", "fp32: sums that add in fp32 alone, the same on every device"),
        ("  batch_invariant: false", "true: one plan a mode, whose sums add in the same order at every token count"),
        ("  sensitivity: null", "file that says how much an error matters, by boundary and layer"),
        ("  pin: []", "ops that must be taken, as in {op: all_reduce, boundary: mlp_out, layers: 0-3}"),
        ("  forbid: []", "ops that must not"),
        ("limits:", ""),
        ("  activation_memory_gb: null", "of a rank"),
        ("  static_fraction: null", "of a device for weights and KV cache; null: the executor's"),
        ("search:", ""),
        ("  range_tolerance: 0.005", "loss at which token ranges are merged"),
    ]
    machine = Path(fields["hardware"]).stem
    head = f"# {model.name} on {machine}. Made by `commplan init deployment`: every key, to be changed at will."
    width = max(len(left) for left, right in rows if right and len(left) < 40) + 1
    lines = [f"{left:<{width}} # {right}" if right else left for left, right in rows]
    return "\n".join([head, *lines, ""])


def _because(reasons: Mapping[str, str], mode: str) -> str:
    return f": {reasons[mode]}" if mode in reasons else ""
