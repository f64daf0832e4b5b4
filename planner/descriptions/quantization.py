"""What the `quantization_config` of a Hugging Face config.json says of the weights.

Read are the methods `fp8`, `compressed-tensors`, `gptq`, `awq` and `mxfp4`; another is an error that names it, because
weights of unknown size cannot be priced. Modules left as they are count where they make up a whole part of the model:
every layer's attention, dense MLP, experts or shared experts. Embedding, head and router are never quantised here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from ..strategy.config_json import ConfigJson
from ..strategy.errors import InputError
from ..strategy.words import QuantizablePart
from .base import PositiveInt, Spec
from .weight_types import WEIGHT_TYPES, WeightType

QUANTIZATION_CONFIG = "quantization_config"
_METHODS = ("fp8", "compressed-tensors", "gptq", "awq", "mxfp4")

BlockSpec = tuple[PositiveInt, PositiveInt]


class OtherWeights(Spec):
    """Parts of a checkpoint that are quantised to another type."""

    parts: tuple[QuantizablePart, ...]
    weights: WeightType
    block: BlockSpec | None = None


class Quantization(Spec):
    """Weights of a quantised checkpoint: their type, rows and columns under one scale, the parts left unquantised, and
    those of another type."""

    weights: WeightType
    block: BlockSpec | None = None
    unquantized: tuple[QuantizablePart, ...] = ()
    other: OtherWeights | None = None


def quantization_fields(config: ConfigJson, num_layers: int) -> dict[str, Any] | None:
    """The fields of a Quantization, or None where the checkpoint is not quantised."""
    found = config.mapping(QUANTIZATION_CONFIG) or config.section("text_config").mapping(QUANTIZATION_CONFIG)
    if found is None:
        return None
    method = found.text("quant_method")
    if method is None:
        raise found.missing("quant_method")
    readers: dict[str, Callable[[ConfigJson], dict[str, Any]]] = dict(
        zip(_METHODS, (_fp8, _compressed_tensors, _grouped, _grouped, _mxfp4), strict=True)
    )
    if method not in readers:
        raise found.refused("quant_method", f"one of {', '.join(_METHODS)}")
    left = _left_as_they_are(
        [text for key in ("modules_to_not_convert", "ignored_layers", "ignore") for text in found.items(key, str)],
        num_layers,
        found,
    )
    fields = readers[method](found) | ({"unquantized": left} if left else {})
    return _with_experts(fields, found.text("expert_dtype") or config.text("expert_dtype"), left)


def _with_experts(fields: dict[str, Any], experts: str | None, left: list[QuantizablePart]) -> dict[str, Any]:
    """DeepSeek-V4 has experts in FP4 beside FP8: the many weights are the type, the rest another."""
    if experts != "fp4":
        return fields
    parts = [part for part in _MODULES if part != "experts" and part not in left]
    return _fields("mxfp4", WEIGHT_TYPES["mxfp4"].block) | {"other": {"parts": parts, **fields}}


def _fp8(config: ConfigJson) -> dict[str, Any]:
    block = config.items("weight_block_size", int)
    if block and (len(block) != 2 or min(block) < 1):
        raise config.refused("weight_block_size", "[rows, columns], two whole numbers above 0,")
    return _fields("fp8", block or None)


def _mxfp4(_: ConfigJson) -> dict[str, Any]:
    return _fields("mxfp4", WEIGHT_TYPES["mxfp4"].block)


def _grouped(config: ConfigJson) -> dict[str, Any]:
    """GPTQ and AWQ: weights alone, `bits` of each, groups along the inputs; -1 is a scale per row."""
    bits = config.size("w_bit" if config.has("w_bit") else "bits")
    weights = {4: "w4a16", 8: "w8a16"}.get(bits)
    if weights is None:
        raise config.refused("w_bit" if config.has("w_bit") else "bits", "4 or 8")
    name = "q_group_size" if config.has("q_group_size") else "group_size"
    return _fields(weights, _group(config, name))


def _group(config: ConfigJson, name: str) -> list[int] | None:
    if not config.has(name) or config.is_minus_one(name):
        return None
    return [1, config.size(name)]


def _compressed_tensors(config: ConfigJson) -> dict[str, Any]:
    groups = config.mapping("config_groups")
    found = [] if groups is None else [_scheme(group) for group in groups.mappings()]
    if not found or any(other != found[0] for other in found):
        raise InputError(
            "one scheme for all groups is expected: weights of several types cannot be priced yet",
            file=config.file,
            field=f"{config.path}config_groups",
        )
    return found[0]


def _scheme(group: ConfigJson) -> dict[str, Any]:
    weights = group.mapping("weights")
    if weights is None:
        raise group.missing("weights")
    bits, kind = weights.size("num_bits"), weights.text("type") or "int"
    weight_only = group.mapping("input_activations") is None
    block = weights.items("block_structure", int) or _group(weights, "group_size")
    name = {
        (8, "float", False): "fp8",
        (8, "int", False): "int8",
        (8, "float", True): "w8a16",
        (8, "int", True): "w8a16",
        (4, "int", True): "w4a16",
        (4, "float", True): "mxfp4" if block == [1, 32] else None,
    }.get((bits, kind, weight_only))
    if name is None:
        acts = "weights alone" if weight_only else "weights and activations"
        expected = "8 bits, or 4 bits of weights alone (mxfp4 where they are floats, in groups of 32),"
        raise weights.refused("num_bits", f"{expected} not {bits}-bit {kind} {acts},")
    return _fields(name, block)


def _fields(weights: str, block: list[int] | tuple[int, int] | None) -> dict[str, Any]:
    return {"weights": weights, **({} if block is None else {"block": list(block)})}


# ---- modules that are left as they are -------------------------------------------------------------------------------

# Names of Hugging Face modules, {} being the layer; a part is left where every layer has all of one spelling left.
_MODULES: dict[QuantizablePart, tuple[tuple[str, ...], ...]] = {
    "attention": (
        tuple("model.layers.{}.self_attn." + name for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
        tuple(
            "model.layers.{}.self_attn." + name
            for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
        ),
    ),
    "dense_mlp": (tuple("model.layers.{}.mlp." + name for name in ("gate_proj", "up_proj", "down_proj")),),
    "experts": (tuple("model.layers.{}.mlp.experts.0." + name for name in ("gate_proj", "up_proj", "down_proj")),),
    "shared_experts": tuple(
        tuple("model.layers.{}.mlp." + shared + name for name in ("gate_proj", "up_proj", "down_proj"))
        for shared in ("shared_experts.", "shared_expert.")
    ),
}
Patterns = Annotated[list[str], "texts of a list of modules: names, parts of names, with *, or regular expressions"]


def _left_as_they_are(patterns: Patterns, num_layers: int, config: ConfigJson) -> list[QuantizablePart]:
    if not patterns:
        return []
    is_left = _matcher(patterns, config)
    return [
        part for part, spellings in _MODULES.items() if any(_all(is_left, names, num_layers) for names in spellings)
    ]


def _all(is_left: Callable[[str], bool], names: Iterable[str], num_layers: int) -> bool:
    return all(is_left(name.format(layer)) for name in names for layer in range(num_layers))


def _matcher(patterns: Patterns, config: ConfigJson) -> Callable[[str], bool]:
    """`re:...` is a regular expression over the whole name, any other text a name, or a piece of it between dots."""
    whole = [_compiled(text.removeprefix("re:"), config) for text in patterns if text.startswith("re:")]
    globs = [text for text in patterns if "*" in text and not text.startswith("re:")]
    whole += [_compiled(re.escape(text).replace(r"\*", ".*"), config) for text in globs]
    plain = {text for text in patterns if "*" not in text and not text.startswith("re:")}

    def is_left(name: str) -> bool:
        parts = name.split(".")
        pieces = {".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
        return not plain.isdisjoint(pieces) or any(pattern.match(name) for pattern in whole)

    return is_left


# Who wrote a file decides how long its expressions take: these take a moment on any name of a module.
_LONGEST, _MOST_REPEATS = 200, 3
_REPEAT = re.compile(r"(?<!\\)[*+{]")
_REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{?]")


def _compiled(text: str, config: ConfigJson) -> re.Pattern[str]:
    if len(text) > _LONGEST or len(_REPEAT.findall(text)) > _MOST_REPEATS or _REPEATED_GROUP.search(text):
        why = f"up to {_LONGEST} characters and {_MOST_REPEATS} repetitions, none of a group, are taken"
        raise InputError(why, file=config.file, field=f"{config.path}ignore", value=text)
    try:
        return re.compile(text)
    except (re.error, OverflowError) as error:
        why = f"not a regular expression: {error}"
        raise InputError(why, file=config.file, field=f"{config.path}ignore", value=text) from None
