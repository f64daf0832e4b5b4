"""What vLLM can be told: one limit of the fused kernel, and which kernels it has at all (docs/vllm.md)."""

from __future__ import annotations

from dataclasses import dataclass

from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.setup import Setup
from ..executors.stock import Stock, StockFusion, StockSum

MIB = 1 << 20
FUSED = "flashinfer_fused"
CUSTOM = "vllm_custom"


@dataclass(frozen=True)
class Switch:
    """A setting that takes kernels away from vLLM, as impls of its executor."""

    impls: tuple[str, ...]
    environment: tuple[str, str] | None = None
    argument: str | None = None


FLASHINFER = Switch(("flashinfer",), environment=("VLLM_ALLREDUCE_USE_FLASHINFER", "0"))
OWN = Switch((CUSTOM,), argument="--disable-custom-all-reduce")
SYMMETRIC = Switch(("multimem", "torch_two_shot"), environment=("VLLM_ALLREDUCE_USE_SYMM_MEM", "0"))
SWITCHES = (FLASHINFER, OWN, SYMMETRIC)


@dataclass(frozen=True)
class Setting:
    """What vLLM is told; without anything it runs by its defaults.

    off           kernels that it shall not have
    fused_tokens  the largest forward in which a sum is fused with its norm; 0: none is, None: by default
    """

    off: tuple[Switch, ...] = ()
    fused_tokens: int | None = None

    @property
    def num_told(self) -> int:
        """How much it is told."""
        return len(self.off) + (self.fused_tokens is not None)

    def pass_config(self, row_bytes: int) -> dict[str, bool | float]:
        """Its part of `pass_config`. vLLM makes bytes of the MiB, and tokens of the bytes, rounded down: exact here."""
        if self.fused_tokens is None:
            return {}
        if self.fused_tokens == 0:
            return {"fuse_allreduce_rms": False}
        return {"fuse_allreduce_rms": True, "fi_allreduce_fusion_max_size_mb": self.fused_tokens * row_bytes / MIB}

    @property
    def environment(self) -> dict[str, str]:
        """Its part of the environment."""
        return dict(switch.environment for switch in self.off if switch.environment is not None)

    @property
    def flags(self) -> list[str]:
        """Its part of the command line, but for `--compilation-config`."""
        return [switch.argument for switch in self.off if switch.argument is not None]


def rules_under(setting: Setting, setup: Setup) -> Stock:
    """The rules by which vLLM sums once it is told a setting."""
    stock = setup.executor.stock
    assert stock is not None  # an executor without a server is told nothing
    gone = {impl for switch in setting.off for impl in switch.impls}
    sums = [rule for rule in stock.sums if rule.impl not in gone]
    if SYMMETRIC in setting.off:  # its own kernel is then held to its own limit alone, as without multicast
        sums = [_anywhere(rule) if rule.impl == CUSTOM else rule for rule in sums if not _is_beside_multicast(rule)]
    return stock.model_copy(update={"sums": tuple(sums), "fusions": _fusions(setting, setup, stock)})


def _is_beside_multicast(rule: StockSum) -> bool:
    return rule.impl == CUSTOM and rule.multicast is True


def _anywhere(rule: StockSum) -> StockSum:
    return rule.model_copy(update={"multicast": None})


def _fusions(setting: Setting, setup: Setup, stock: Stock) -> tuple[StockFusion, ...]:
    if setting.fused_tokens is None:
        return stock.fusions
    if setting.fused_tokens == 0 or not can_fuse(setup):
        return ()
    rules = stock.fusions or _unlimited(setup)
    most = setting.fused_tokens * row_bytes(setup)
    return tuple(rule.model_copy(update={"max_message_bytes": most}) for rule in rules)


def _unlimited(setup: Setup) -> tuple[StockFusion, ...]:
    from ..executors import load_executor

    stock = load_executor(setup.executor.name).stock
    assert stock is not None
    return stock.fusions


def can_fuse(setup: Setup) -> bool:
    """True where there is a fused kernel for these devices and ranks, so that its limit is worth a word."""
    impl = setup.executor.impls.get(FUSED)
    return impl is not None and impl.stock_only is None


def row_bytes(setup: Setup) -> int:
    """Bytes of a token's row of activations."""

    return int(setup.model.hidden_size * DTYPE_BYTES[setup.deployment.dtypes.activations])
