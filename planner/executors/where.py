"""Conditions of rules in an executor's file: deployments and forwards that one speaks of."""

from __future__ import annotations

from typing import Annotated

from ..descriptions.base import OneOf, PositiveInt, Spec, Text
from ..strategy.vendors import VENDORS
from ..strategy.words import ForwardMode, MoeBackend

Vendor = Annotated[str, OneOf(VENDORS)]


class Where(Spec):
    """Deployments and forwards that a rule speaks of; what is left out may be anything.

    peer_access  devices read each other's memory
    multicast    the switch adds and multiplies (NVLS)
    fp8          devices that compute in FP8
    mla          latent attention
    latent       MLA with q_lora_rank
    attn_tp      a DP group has several ranks
    weights      data types of the weights
    """

    vendors: tuple[Vendor, ...] | None = None
    topologies: tuple[Text, ...] | None = None  # of the links inside a node
    peer_access: bool | None = None
    multicast: bool | None = None
    fp8: bool | None = None
    architectures: tuple[Text, ...] | None = None
    not_architectures: tuple[Text, ...] = ()
    mla: bool | None = None
    latent: bool | None = None
    attn_dp: bool | None = None
    attn_tp: bool | None = None
    moe_backends: tuple[MoeBackend, ...] | None = None
    modes: tuple[ForwardMode, ...] | None = None
    weights: tuple[Text, ...] | None = None


class Graphs(Where):
    """Forwards that are replayed from graphs, up to a token count; without one, all."""

    max_tokens: PositiveInt | None = None
