"""A checkpoint's config.json as transformers reads it, and the model without weights that it makes of it.

Of a model with images it makes the text's.

transformers checks some fields and fails on the others with whatever Python raises, at load or in the first forward.
Here all of it is one refusal, before weights are read.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import RefusedError
from .checkpoint_fit import read_config, text_of


def outline_of(checkpoint: str | Path) -> tuple[Any, nn.Module]:
    """(config, model on the meta device); RefusedError where there is none. Nothing is fetched, and no code is run."""
    from transformers import AutoConfig, AutoModelForCausalLM

    path = str(Path(checkpoint) / "config.json")
    try:
        _check_values(text_of(read_config(checkpoint)))
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
        _check_groups(config.get_text_config())
        if getattr(config, "quantization_config", 0) is None:  # transformers takes the mere name for quantisation
            del config.quantization_config
        with torch.device("meta"):
            outline = AutoModelForCausalLM.from_config(config)
    except RefusedError as error:
        raise error.in_file(path) from None
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        reason = f"transformers {version('transformers')} makes no model of it: {type(error).__name__}: {told}"
        raise RefusedError(reason, file=path) from error
    return config, outline


def _check_values(config: dict[str, Any]) -> None:
    """Fields on which transformers fails without naming them."""
    from transformers.activations import ACT2FN
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    _check_name("hidden_act", config.get("hidden_act"), ACT2FN)
    for section in ("rope_scaling", "rope_parameters"):
        rope = config.get(section)
        if rope is not None and not isinstance(rope, dict):
            raise RefusedError("a mapping is expected", field=section, value=rope)
        for key in ("rope_type", "type"):
            _check_name(f"{section}.{key}", (rope or {}).get(key), {"default", *ROPE_INIT_FUNCTIONS})
    window = config.get("sliding_window")
    if window is not None and (type(window) is not int or not 0 <= window < 2**31):
        raise RefusedError("a whole number from 0 is expected, or null", field="sliding_window", value=window)


def _check_groups(config: Any) -> None:
    """Groups of experts, of which each token chooses some; a config.json may leave both to transformers' defaults."""
    groups, experts = getattr(config, "n_group", None), getattr(config, "n_routed_experts", None)
    if groups is None or experts is None:
        return
    if type(groups) is not int or groups < 1 or experts % groups:
        reason = f"a whole number that divides n_routed_experts {experts} is expected"
        raise RefusedError(reason, field="n_group", value=groups)
    by_best_alone = config.model_type == "deepseek_v2"  # a group's score; all others take its two best experts'
    if not by_best_alone and experts // groups < 2:
        reason = f"groups of two experts at least are expected, of n_routed_experts {experts}"
        raise RefusedError(reason, field="n_group", value=groups)
    chosen = getattr(config, "topk_group", None)
    if chosen is None and by_best_alone:  # may choose among all experts
        return
    if type(chosen) is not int or not 1 <= chosen <= groups:
        raise RefusedError(f"a whole number from 1 to n_group {groups} is expected", field="topk_group", value=chosen)


def _check_name(field: str, value: object, accepted: Collection[str]) -> None:
    if value is not None and (not isinstance(value, str) or value not in accepted):
        raise RefusedError(f"accepted: {', '.join(sorted(accepted))}", field=field, value=value)
