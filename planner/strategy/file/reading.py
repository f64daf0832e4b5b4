"""Reading a strategy file: strict, with the field named in every error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..bounds import LARGEST, LARGEST_INT, MAX_LAYERS, SMALLEST
from ..errors import InputError, did_you_mean
from ..files import read_text
from ..layout import ALL_TO_ALL, LAYER_BOUNDARIES, Parallelism
from ..lines_of_files import located
from ..ops import NONE, Op
from ..ops import parse as parse_op
from ..words import FORWARD_MODES, MODEL_ROLES, MOE_BACKENDS, NUMERICS_CLASSES, Word, as_word
from ..yaml_file import parse_yaml, refuse_control_characters
from .document import (
    STRATEGY_SCHEMA,
    DeploymentStamp,
    FasterRival,
    HardwareStamp,
    LayerOps,
    ModelStamp,
    Predicted,
    RangePlan,
    StrategyFile,
)
from .legality import problems

_STAMPS = ("schema", "model", "hardware", "deployment", "overrides", "executor")
KEYS = (*_STAMPS, "parallelism", "numerics", "modes", "end")
_MAX_LAYERS_IN_ALL = 1_000_000  # over all ranges: far above any plan, far below what a short hostile file could ask for
_STOCK = ("stock_us", "stock_source", "best_stock_flag", "library_us", "faster_rivals")
PREDICTED_KEYS = (
    "tokens", "step_us", *_STOCK, "all_reduce_us", "best_uniform", "worst_loss", "source", "host_wait_us",
    "perplexity_rise", "perplexity_budget"
)  # fmt: skip
_FIELD = re.compile(r"[^\s.=]+(\.[^\s.=]+)*\Z")
_LAYERS = re.compile(r"([0-9]{1,6})(-([0-9]{1,6}))?\Z")


def load(path: str | Path) -> StrategyFile:
    """A strategy file that is well-formed and legal; raises InputError otherwise."""
    strategy = read(path)
    for problem in problems(strategy):
        found = InputError(
            problem.reason, kind="illegal_plan", file=str(path), field=problem.field, value=problem.value
        )
        raise located(found)
    return strategy


def read(path: str | Path) -> StrategyFile:
    """A strategy file that is well-formed; its legality is not looked at."""
    text = read_text(path)
    try:
        return parse(text)
    except InputError as error:
        raise located(error.in_file(str(path))) from None


def parse(text: str) -> StrategyFile:
    """A strategy from its text; raises InputError without a file name."""
    data = parse_yaml(text)
    refuse_control_characters(data)
    if not isinstance(data, dict):
        raise InputError("a strategy file is a mapping", kind="truncated" if data is None else "bad_input")
    schema = data.get("schema")
    if schema != STRATEGY_SCHEMA:
        newer = isinstance(schema, str) and schema.startswith("commplan/strategy/")
        hint = "it was written by another version of commplan" if newer else "not a commplan strategy file"
        raise InputError(f"{hint}; this version reads {STRATEGY_SCHEMA}", kind="schema", field="schema", value=schema)
    if data.get("end") is not True or list(data)[-1] != "end" or not text.endswith("\n"):
        raise InputError(
            "the file does not end with a line `end: true`: it is truncated", kind="truncated", field="end"
        )
    _only(data, KEYS, "")
    model = _model(_mapping(data, "model", ""))
    modes = _mapping(data, "modes", "")
    if not modes:
        raise InputError("holds no forward mode", field="modes")
    return StrategyFile(
        model=model,
        hardware=HardwareStamp(
            **_texts(_mapping(data, "hardware", ""), "hardware", ("name", "backend", "fingerprint"))
        ),
        deployment=DeploymentStamp(
            **_texts(_mapping(data, "deployment", ""), "deployment", ("name", "activations", "fingerprint"))
        ),
        executor=_text(data, "executor", ""),
        parallelism=_parallelism(_mapping(data, "parallelism", ""), model.num_hidden_layers),
        numerics=_choice(data, "numerics", "", NUMERICS_CLASSES),
        modes={mode: _ranges(mode, value, model.num_hidden_layers) for mode, value in modes.items()},
        overrides=_overrides(data),
    )


# ---- sections --------------------------------------------------------------------------------------------------------


def _model(data: dict[str, Any]) -> ModelStamp:
    texts = ("name", "role", "architecture", "fingerprint")
    numbers = ("num_hidden_layers", "hidden_size", "latent_width")
    _only(data, (*texts, *numbers, "moe_layers", "residual_streams"), "model")
    layers = _number(data, "num_hidden_layers", "model", 1, MAX_LAYERS)
    moe: frozenset[int] = frozenset()
    if (given := data.get("moe_layers")) is not None:
        moe = frozenset(_layer_numbers(given, "model.moe_layers", layers))
    return ModelStamp(
        name=_text(data, "name", "model"),
        role=_choice(data, "role", "model", MODEL_ROLES),
        architecture=_text(data, "architecture", "model"),
        num_hidden_layers=layers,
        hidden_size=_number(data, "hidden_size", "model", 1),
        latent_width=_number(data, "latent_width", "model", 0),
        moe_layers=moe,
        fingerprint=_text(data, "fingerprint", "model"),
        residual_streams=_number(data, "residual_streams", "model", 1) if "residual_streams" in data else 1,
    )


def _parallelism(data: dict[str, Any], num_layers: int) -> Parallelism:
    _only(data, ("tp", "attn_dp", "ep", "moe_backend", "pp"), "parallelism")
    tp, attn_dp, ep = (_number(data, key, "parallelism", 1) for key in ("tp", "attn_dp", "ep"))
    for key, value in (("attn_dp", attn_dp), ("ep", ep)):
        if tp % value:
            raise InputError(f"does not divide tp {tp}", field=f"parallelism.{key}", value=value)
    moe_backend = _choice(data, "moe_backend", "parallelism", MOE_BACKENDS)
    if moe_backend == ALL_TO_ALL and ep != tp:
        raise InputError(f"an all-to-all MoE needs ep equal to tp {tp}", field="parallelism.ep", value=ep)
    pp = _number(data, "pp", "parallelism", 1) if "pp" in data else 1
    if pp > num_layers:
        raise InputError(f"more stages than the {num_layers} layers", field="parallelism.pp", value=pp)
    return Parallelism(tp, attn_dp, ep, moe_backend, pp)


def _overrides(data: dict[str, Any]) -> dict[str, Any]:
    """Fields of the deployment with their values; an older file has none. What they mean is the loader's to say."""
    if "overrides" not in data:
        return {}
    found = _mapping(data, "overrides", "")
    for field in found:
        if not _FIELD.match(field):
            raise InputError("a field is written parallelism.tp", field="overrides", value=field)
    return found


def _ranges(mode: str, value: Any, num_layers: int) -> tuple[RangePlan, ...]:
    field = f"modes.{mode}"
    if mode not in FORWARD_MODES:
        raise InputError(f"no such forward mode; {did_you_mean(mode, FORWARD_MODES)}", field=field)
    if not isinstance(value, list) or not value:
        raise InputError("a list of token ranges is expected", field=field, value=value)
    if len(value) * num_layers > _MAX_LAYERS_IN_ALL:
        raise InputError(
            f"at most {_MAX_LAYERS_IN_ALL // num_layers} token ranges are read", field=field, value=len(value)
        )
    return tuple(_range(f"{field}[{index}]", item, num_layers) for index, item in enumerate(value))


def _range(field: str, data: Any, num_layers: int) -> RangePlan:
    if not isinstance(data, dict):
        raise InputError("a mapping with tokens and layers is expected", field=field, value=data)
    _only(data, ("tokens", "embed_out", "layers", "head_in", "predicted"), field)
    first, last = _tokens(data, field)
    return RangePlan(
        first=first,
        last=last,
        embed_out=_op(data, "embed_out", field),
        layers=_layers(data.get("layers"), f"{field}.layers", num_layers),
        head_in=_op(data, "head_in", field),
        predicted=_predicted(data.get("predicted"), f"{field}.predicted"),
    )


def _tokens(data: dict[str, Any], field: str) -> tuple[int, int]:
    tokens = data.get("tokens")
    if not (isinstance(tokens, list) and len(tokens) == 2 and all(type(t) is int and t > 0 for t in tokens)):
        raise InputError("[min, max] of positive whole numbers is expected", field=f"{field}.tokens", value=tokens)
    if tokens[0] > tokens[1]:
        raise InputError("min is above max", field=f"{field}.tokens", value=tokens)
    return tokens[0], tokens[1]


def _layers(value: Any, field: str, num_layers: int) -> tuple[LayerOps, ...]:
    if not isinstance(value, list) or not value:
        raise InputError("a list of runs of layers is expected", field=field, value=value)
    found: dict[int, LayerOps] = {}
    for index, run in enumerate(value):
        where = f"{field}[{index}]"
        if not isinstance(run, dict):
            raise InputError("a mapping with layers and ops is expected", field=where, value=run)
        _only(run, ("layers", *LAYER_BOUNDARIES), where)
        ops = LayerOps(*(_op(run, boundary, where) for boundary in LAYER_BOUNDARIES))
        for layer in _layer_numbers(run.get("layers"), f"{where}.layers", num_layers):
            if layer in found:
                raise InputError(f"layer {layer} stands in two runs", field=f"{where}.layers", value=run["layers"])
            found[layer] = ops
    missing = next((layer for layer in range(num_layers) if layer not in found), None)
    if missing is not None:
        raise InputError(f"layer {missing} of {num_layers} stands in no run", field=field)
    return tuple(found[layer] for layer in range(num_layers))


def _layer_numbers(value: Any, field: str, num_layers: int) -> list[int]:
    parts = [str(value)] if type(value) is int else value.split(",") if isinstance(value, str) else []
    numbers: list[int] = []
    for part in parts:
        match = _LAYERS.match(part.strip())
        if match is None:
            parts = []
            break
        low, high = int(match[1]), int(match[3] or match[1])
        if low > high or high >= num_layers:
            raise InputError(f"the model's layers are 0-{num_layers - 1}", field=field, value=value)
        if len(numbers) + high - low >= num_layers:
            raise InputError("names a layer twice", field=field, value=value)
        numbers.extend(range(low, high + 1))
    if not parts:
        raise InputError("layers are written 7, 0-60 or 0-2,5", field=field, value=value)
    return numbers


def _predicted(data: Any, field: str) -> Predicted | None:
    if data is None:
        return None
    if not isinstance(data, dict):
        raise InputError("a mapping is expected", field=field, value=data)
    _only(data, PREDICTED_KEYS, field)
    has_stock = any(key in data for key in _STOCK)  # an older file has none of them
    return Predicted(
        tokens=_number(data, "tokens", field, 1),
        step_us=_time(data, "step_us", field, least=SMALLEST),
        all_reduce_us=_time(data, "all_reduce_us", field, least=SMALLEST),
        best_uniform=_rival(data, "best_uniform", "strategy", field),
        worst_loss=_time(data, "worst_loss", field),
        source=_text(data, "source", field),
        stock_us=_time(data, "stock_us", field, least=SMALLEST) if has_stock else None,
        stock_source=_text(data, "stock_source", field) if has_stock else None,
        best_stock_flag=_rival(data, "best_stock_flag", "name", field),
        library_us=_time(data, "library_us", field, least=SMALLEST) if has_stock else None,
        faster_rivals=_faster_rivals(data.get("faster_rivals", []), f"{field}.faster_rivals"),
        host_wait_us=_time(data, "host_wait_us", field) if "host_wait_us" in data else 0.0,
        perplexity_rise=_time(data, "perplexity_rise", field) if "perplexity_rise" in data else None,
        perplexity_budget=_time(data, "perplexity_budget", field) if "perplexity_budget" in data else None,
    )


def _faster_rivals(data: Any, field: str) -> tuple[FasterRival, ...]:
    if not isinstance(data, list):
        raise InputError("a list is expected", field=field, value=data)
    found = []
    for index, each in enumerate(data):
        where = f"{field}[{index}]"
        if not isinstance(each, dict):
            raise InputError("a mapping is expected", field=where, value=each)
        _only(each, ("flag", "tokens", "lead"), where)
        flag = None if each.get("flag", "") is None else _text(each, "flag", where)
        found.append(FasterRival(flag, *_tokens(each, where), _time(each, "lead", where)))
    return tuple(found)


def _rival(data: dict[str, Any], key: str, name: str, field: str) -> tuple[str, float] | None:
    """What a plan is held against: its name and its step."""
    given, where = data.get(key), f"{field}.{key}"
    if given is None:
        return None
    if not isinstance(given, dict):
        raise InputError("a mapping is expected", field=where, value=given)
    _only(given, (name, "step_us"), where)
    return _text(given, name, where), _time(given, "step_us", where, least=SMALLEST)


# ---- values ----------------------------------------------------------------------------------------------------------


def _op(data: dict[str, Any], boundary: str, field: str) -> Op:
    value = data.get(boundary)
    return NONE if value is None and boundary not in data else parse_op(value, f"{field}.{boundary}")


def _join(field: str, key: str) -> str:
    return f"{field}.{key}" if field else key


def _only(data: dict[str, Any], accepted: tuple[str, ...], field: str) -> None:
    for key in data:
        if key not in accepted:
            raise InputError(f"unknown key; {did_you_mean(key, accepted)}", kind="unknown_key", field=_join(field, key))


def _mapping(data: dict[str, Any], key: str, field: str) -> dict[str, Any]:
    value = _required(data, key, field)
    if not isinstance(value, dict):
        raise InputError("a mapping is expected", field=_join(field, key), value=value)
    return value


def _required(data: dict[str, Any], key: str, field: str) -> Any:
    if key not in data:
        raise InputError("is missing", kind="missing_key", field=_join(field, key))
    return data[key]


def _text(data: dict[str, Any], key: str, field: str) -> str:
    value = _required(data, key, field)
    if not isinstance(value, str) or not value:
        raise InputError("a text is expected", field=_join(field, key), value=value)
    return value


def _texts(data: dict[str, Any], field: str, keys: tuple[str, ...]) -> dict[str, str]:
    _only(data, keys, field)
    return {key: _text(data, key, field) for key in keys}


def _choice(data: dict[str, Any], key: str, field: str, accepted: tuple[Word, ...]) -> Word:
    value = _text(data, key, field)
    if (word := as_word(value, accepted)) is None:
        raise InputError(f"not accepted; {did_you_mean(value, accepted)}", field=_join(field, key), value=value)
    return word


def _number(data: dict[str, Any], key: str, field: str, least: int, most: int = LARGEST_INT) -> int:
    value = _required(data, key, field)
    if type(value) is not int or not least <= value <= most:
        raise InputError(f"a whole number from {least} is expected", field=_join(field, key), value=value)
    return value


def _time(data: dict[str, Any], key: str, field: str, least: float = 0.0) -> float:
    """A number of at least so much: zero, or of what others are divided by, more than that."""
    value = _required(data, key, field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= LARGEST:
        kind = "positive number" if least else "number that is not negative"
        raise InputError(f"a {kind} is expected", field=_join(field, key), value=value)
    return float(value)
