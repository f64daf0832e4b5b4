"""Architectures whose layers are no pair of attention and MLP that each add one sum to the residual."""

from __future__ import annotations

from ..config_fields import attention
from . import Architecture

_BY_HAND = (
    "a model file of plain sizes (docs/models.md, commplan/model/v1) makes plan_only plan what comes near it: say what "
    "differs under `assumed`"
)
ARCHITECTURES = (
    Architecture(
        "Gemma4ForConditionalGeneration",
        attention,
        refused="Gemma 4 norms a block's sum before it adds it to the residual, and has a dense MLP beside the experts "
        f"of a layer: no layer that is described here; {_BY_HAND}",
    ),
    Architecture(
        "NemotronHForCausalLM",
        attention,
        refused="a layer of Nemotron-H is one mixer (Mamba, attention or experts) with one sum, not attention and an "
        f"MLP: no layer that is described here; {_BY_HAND}",
    ),
)
