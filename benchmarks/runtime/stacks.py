"""How fast is a planned prefill? Random-weight stacks with the shapes of Qwen3-32B and DeepSeek MLA, bf16.

    python benchmarks/runtime/stacks.py                 # a rank for each GPU; needs about 20 GB of disk
    python benchmarks/runtime/stacks.py --deployment qwen=qwen3-32b-h100-tp2 --deployment mla=deepseek-r1-h100-tp2
        # the plan for these deployments, with the stack as their model, as one more column

Every plan runs on the same weights, interleaved in one run; times are medians, ratios are against plain all-reduce by
NCCL. `bound` runs the same kernels with no communication at all; what a plan has of the time between the two is the
share of communication that it recovers. `own ...` are collectives of our own, with the norm in the kernel where there
is one; `transformers` is transformers' own tensor parallelism.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from commplan.planner.strategy.file import (
    DeploymentStamp,
    HardwareStamp,
    LayerOps,
    ModelStamp,
    Op,
    Parallelism,
    RangePlan,
    StrategyFile,
    config_fingerprint,
    load,
    problems,
)

TOKENS = (512, 1024, 2048, 4096, 8192, 16384)
SEQUENCE = 4096
WARM_UP = 4
NONE = Op("none")
AR, RS, AG = Op("all_reduce"), Op("reduce_scatter"), Op("all_gather")


def int8(algorithm, impl=None):
    return Op("int8_all_reduce", algorithm=algorithm, impl=impl)


def own(op, norm=True):
    """The op by a kernel of our own, which also does the norm."""
    return replace(op, impl="commplan_triton_norm" if norm else "commplan_triton")


LATE, FOLD = Op("latent_all_gather"), Op("all_reduce", residual="fold")
PLANS = {
    "all_reduce": ((AR, NONE, AR, NONE, AR, NONE), ("qwen", "mla")),
    "tp_sp": ((RS, AG, RS, AG, RS, AG), ("qwen", "mla")),
    "late_gather": ((RS, LATE, FOLD, NONE, RS, AG), ("mla",)),
    "late_gather_sp": ((RS, LATE, RS, AG, RS, AG), ("mla",)),
    "own_all_reduce": ((own(AR, False), NONE, own(AR), NONE, own(AR), NONE), ("qwen", "mla")),
    "own_tp_sp": ((RS, own(AG, False), own(RS), own(AG, False), own(RS), AG), ("qwen", "mla")),
    "own_late_sp": ((RS, own(LATE, False), own(RS), own(AG, False), own(RS), AG), ("mla",)),
    "own_int8_gather": ((AR, NONE, own(int8("gather")), NONE, own(int8("gather")), NONE), ("qwen", "mla")),
    "own_int8_two_shot": ((AR, NONE, own(int8("two_shot")), NONE, own(int8("two_shot")), NONE), ("qwen", "mla")),
    "int8_gather": ((AR, NONE, int8("gather"), NONE, int8("gather"), NONE), ("qwen", "mla")),
    "int8_two_shot": ((AR, NONE, int8("two_shot"), NONE, int8("two_shot"), NONE), ("qwen", "mla")),
}


def configs(layers):
    from transformers import DeepseekV3Config, Qwen3Config

    small = {"vocab_size": 8192, "num_hidden_layers": layers, "tie_word_embeddings": False}
    qwen = Qwen3Config(
        hidden_size=5120, intermediate_size=25600, num_attention_heads=64, num_key_value_heads=8, head_dim=128, **small
    )
    mla = DeepseekV3Config(
        hidden_size=7168,
        intermediate_size=18432,
        num_attention_heads=128,
        num_key_value_heads=128,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        first_k_dense_replace=layers,
        n_routed_experts=8,
        moe_intermediate_size=2048,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        **small,
    )
    return {"qwen": qwen, "mla": mla}


def make_checkpoint(name, layers, folder):
    """A checkpoint of random weights in the shapes of a stack."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda:0"):
        model = AutoModelForCausalLM.from_config(configs(layers)[name], dtype=torch.bfloat16)
    model.save_pretrained(folder)


def strategy_of(ops, checkpoint, tp):
    """A plan with the same ops on every layer, for every token count."""
    config = json.loads((Path(checkpoint) / "config.json").read_text())
    layers = config["num_hidden_layers"]
    mla = "kv_lora_rank" in config
    embed, attn_in, attn_out, mlp_in, mlp_out, head = ops

    def layer(index):
        gather = attn_in
        if gather.name == "latent_all_gather":
            gather = replace(gather, producer="embed_out" if index == 0 else "previous.mlp_out")
        return LayerOps(gather, attn_out, mlp_in, mlp_out)

    plan = RangePlan(1, max(TOKENS), embed, tuple(layer(i) for i in range(layers)), head)
    width = config["q_lora_rank"] + config["kv_lora_rank"] + config["qk_rope_head_dim"] if mla else 0
    strategy = StrategyFile(
        ModelStamp(
            "stack",
            "target",
            config["architectures"][0],
            layers,
            config["hidden_size"],
            width,
            frozenset(),
            config_fingerprint(config),
        ),
        HardwareStamp(f"{tp} GPUs", "nccl", "none"),
        DeploymentStamp("stacks", "bf16", "none"),
        "transformers",
        Parallelism(tp),
        "quantized",
        {"prefill": (plan,)},
    )
    assert not list(problems(strategy)), next(problems(strategy))
    return strategy


def plan_for(deployment, folder, overrides):
    """A strategy file for a deployment with the stack as its model."""
    target = str(Path(folder) / "strategy.yaml")
    given = [f"model={folder}/config.json", "dtypes.weights=bf16", *overrides]
    command = [sys.executable, "-m", "commplan.planner.cli", "plan", deployment, "-o", target]
    subprocess.run([*command, *(part for text in given for part in ("--set", text))], check=True)
    return target


def rank_main(name, checkpoint, planned, rounds, variants, tokens, peer):
    """All variants of one stack on this rank: {variant: {tokens: (ms, peak GB, ms saved over plain all-reduce)}}."""
    import torch

    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    world = int(os.environ["WORLD_SIZE"])
    ids = torch.randint(0, 8000, (1, max(TOKENS)), device="cuda", generator=torch.Generator("cuda").manual_seed(1))

    def prompts(tokens):
        sequence = min(tokens, SEQUENCE)
        return ids[:, :tokens].view(tokens // sequence, sequence)

    plans = {
        key: strategy_of(ops, checkpoint, world)
        for key, (ops, stacks) in PLANS.items()
        if name in stacks and (variants is None or key in variants)
    }
    if planned:
        plans["plan"] = load(planned)
    with torch.no_grad():
        results, ours = time_plans(checkpoint, plans, prompts, rounds, tokens)
        torch.cuda.empty_cache()
        if peer:
            results["transformers"], theirs = time_transformers(checkpoint, prompts, rounds, tokens)
            results["difference to transformers"] = float((ours - theirs).abs().max() / theirs.abs().max())
    return results


def time_plans(checkpoint, plans, prompts, rounds, all_tokens):
    """Every plan and the bound, interleaved; and the logits of plain all-reduce."""
    import torch

    from commplan.runtime import load_model
    from commplan.runtime.backends.nccl import NcclBackend

    class Silent(NcclBackend):
        """The same kernels, and nothing travels."""

        def all_reduce(self, x, group):  # noqa: ARG002
            return x

    executor = load_model(checkpoint, plans["all_reduce"], agree=False)
    normal, silent = executor.backend, Silent()

    def use(variant):
        executor.backend = silent if variant == "bound" else normal
        executor.switch(plans.get(variant, plans["all_reduce"]))

    def run(tokens):
        with executor.forward("prefill"):
            return executor.model(prompts(tokens), use_cache=False, logits_to_keep=1).logits

    order = random.Random(0)
    variants = [*plans, "bound"]
    results = {variant: {} for variant in variants}
    for tokens in all_tokens:
        times, peaks = {variant: [] for variant in variants}, {}
        for _ in range(rounds + WARM_UP):
            # Shuffled, alike on all ranks: what ran before changes clocks and caches by a few per cent.
            for variant in order.sample(variants, len(variants)):
                use(variant)
                torch.cuda.reset_peak_memory_stats()
                times[variant].append(timed(run, tokens))
                peaks[variant] = torch.cuda.max_memory_allocated() / 1e9
        for variant in variants:
            kept, plain = times[variant][WARM_UP:], times["all_reduce"][WARM_UP:]
            saved = statistics.median(p - t for p, t in zip(plain, kept, strict=True))  # in pairs: clocks drift
            results[variant][tokens] = (statistics.median(kept), peaks[variant], saved)
    use("all_reduce")
    return results, run(1024).float()


def time_transformers(checkpoint, prompts, rounds, all_tokens):
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.bfloat16, distributed_config=DistributedConfig(tp_size=int(os.environ["WORLD_SIZE"]))
    ).eval()

    def run(tokens):
        return model(prompts(tokens), use_cache=False, logits_to_keep=1).logits

    found = {}
    for tokens in all_tokens:
        torch.cuda.reset_peak_memory_stats()
        times = [timed(run, tokens) for _ in range(rounds + WARM_UP)][WARM_UP:]
        found[tokens] = (statistics.median(times), torch.cuda.max_memory_allocated() / 1e9, None)
    return found, run(1024).float()


def timed(run, tokens):
    """Milliseconds of one forward, from a common start of all ranks."""
    import torch
    import torch.distributed as dist

    dist.barrier()
    torch.cuda.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run(tokens)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def print_table(name, layers, tp, results):
    """ms of every variant, and the share of communication that it recovers."""
    plain, bound = results["all_reduce"], results["bound"]
    print(
        f"\n{name}: {layers} layers, TP {tp}, bf16, prefill in sequences of {SEQUENCE}; ms (of communication recovered)"
    )
    names = [key for key in results if isinstance(results[key], dict)]
    print("\n| tokens | " + " | ".join(names) + " |\n|---:|" + "---:|" * len(names))
    for tokens in plain:
        cells = []
        for key in names:
            ms, _, saved = results[key][tokens]
            share = "" if saved is None else f" ({saved / bound[tokens][2]:.0%})"
            cells.append(f"{ms:.2f}{share}")
        print(f"| {tokens} | " + " | ".join(cells) + " |")
    largest = max(plain)
    peaks = ", ".join(f"{key} {results[key][largest][1]:.1f}" for key in names)
    print(f"\nPeak memory at {largest} tokens, GB: {peaks}")
    if "difference to transformers" in results:
        print(f"Largest logit difference to transformers, relative: {results['difference to transformers']:.1e}")


def main():
    from commplan.runtime.ranks.spawning import run_ranks

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--stack", action="append", choices=("qwen", "mla"))
    parser.add_argument("--deployment", action="append", default=[], metavar="STACK=DEPLOYMENT")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for the deployments")
    parser.add_argument("--variant", action="append", help="only these plans; all_reduce always runs")
    parser.add_argument("--tokens", type=int, action="append", help=f"token counts (default {TOKENS})")
    parser.add_argument("--no-peer", action="store_true", help="leave transformers' own tensor parallelism out")
    parser.add_argument("--json", help="also write all figures here")
    options = parser.parse_args()
    import torch

    tp = torch.cuda.device_count()
    deployments = dict(text.split("=", 1) for text in options.deployment)
    everything = {}
    for name in options.stack or ("qwen", "mla"):
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoint(name, options.layers, folder)
            variants = None if options.variant is None else ["all_reduce", *options.variant]
            tokens, peer = options.tokens or TOKENS, not options.no_peer
            planned = plan_for(deployments[name], folder, options.set) if name in deployments else None
            arguments = (name, folder, planned, options.rounds, variants, tokens, peer)
            results = run_ranks(rank_main, tp, *arguments, timeout_s=420)[0]
        print_table(name, options.layers, tp, results)
        everything[name] = results
    if options.json:
        Path(options.json).write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
