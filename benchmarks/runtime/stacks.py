"""How fast is a planned prefill on two GPUs? Random-weight stacks with the shapes of Qwen3-32B and DeepSeek MLA, bf16.

    python benchmarks/runtime/stacks.py                 # spawns two ranks; needs two GPUs and about 20 GB of disk
    python benchmarks/runtime/stacks.py --plan qwen=strategy.yaml    # the planned strategy as one more column

Every plan runs on the same weights, interleaved in one run; times are medians, ratios are against plain all-reduce.
`bound` runs the same kernels with no communication at all; `transformers` is transformers' own tensor parallelism.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from commplan.planner.strategy_file import (
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


def int8(algorithm):
    return Op("int8_all_reduce", algorithm=algorithm)


LATE, FOLD = Op("latent_all_gather"), Op("all_reduce", residual="fold")
PLANS = {
    "all_reduce": ((AR, NONE, AR, NONE, AR, NONE), ("qwen", "mla")),
    "tp_sp": ((RS, AG, RS, AG, RS, AG), ("qwen", "mla")),
    "late_gather": ((RS, LATE, FOLD, NONE, RS, AG), ("mla",)),
    "late_gather_sp": ((RS, LATE, RS, AG, RS, AG), ("mla",)),
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

    plan = RangePlan(1, 1 << 20, embed, tuple(layer(i) for i in range(layers)), head)
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
        HardwareStamp("two GPUs", "nccl", "none"),
        DeploymentStamp("stacks", "bf16", "none"),
        "transformers",
        Parallelism(tp),
        "quantized",
        {"prefill": (plan,)},
    )
    assert not list(problems(strategy)), next(problems(strategy))
    return strategy


def rank_main(name, checkpoint, planned, rounds):
    """All variants of one stack on this rank: {variant: {tokens: (ms, peak GB)}}."""
    import torch

    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    ids = torch.randint(0, 8000, (1, max(TOKENS)), device="cuda", generator=torch.Generator("cuda").manual_seed(1))

    def prompts(tokens):
        sequence = min(tokens, SEQUENCE)
        return ids[:, :tokens].view(tokens // sequence, sequence)

    plans = {key: strategy_of(ops, checkpoint, 2) for key, (ops, stacks) in PLANS.items() if name in stacks}
    if planned:
        plans["plan"] = load(planned)
    with torch.no_grad():
        results, ours = time_plans(checkpoint, plans, prompts, rounds)
        torch.cuda.empty_cache()
        results["transformers"], theirs = time_transformers(checkpoint, prompts, rounds)
    results["difference to transformers"] = float((ours - theirs).abs().max() / theirs.abs().max())
    return results


def time_plans(checkpoint, plans, prompts, rounds):
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
    for tokens in TOKENS:
        times, peaks = {variant: [] for variant in variants}, {}
        for _ in range(rounds + WARM_UP):
            # Shuffled, alike on both ranks: what ran before changes clocks and caches by a few per cent.
            for variant in order.sample(variants, len(variants)):
                use(variant)
                torch.cuda.reset_peak_memory_stats()
                times[variant].append(timed(run, tokens))
                peaks[variant] = torch.cuda.max_memory_allocated() / 1e9
        for variant in variants:
            results[variant][tokens] = (statistics.median(times[variant][WARM_UP:]), peaks[variant])
    use("all_reduce")
    return results, run(1024).float()


def time_transformers(checkpoint, prompts, rounds):
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.bfloat16, distributed_config=DistributedConfig(tp_size=2)
    ).eval()

    def run(tokens):
        return model(prompts(tokens), use_cache=False, logits_to_keep=1).logits

    found = {}
    for tokens in TOKENS:
        torch.cuda.reset_peak_memory_stats()
        times = [timed(run, tokens) for _ in range(rounds + WARM_UP)][WARM_UP:]
        found[tokens] = (statistics.median(times), torch.cuda.max_memory_allocated() / 1e9)
    return found, run(1024).float()


def timed(run, tokens):
    """Milliseconds of one forward, from a common start of both ranks."""
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


def print_table(name, layers, results):
    plain = results["all_reduce"]
    print(
        f"\n{name}: {layers} layers, TP 2, bf16, prefill in sequences of {SEQUENCE}; ms (speed-up over plain; peak GB)"
    )
    names = [key for key in results if isinstance(results[key], dict)]
    print("  tokens  " + "  ".join(f"{key:>24}" for key in names))
    for tokens in TOKENS:
        cells = []
        for key in names:
            ms, peak = results[key][tokens]
            cells.append(f"{ms:9.3f} ({plain[tokens][0] / ms:5.3f}x {peak:5.1f})")
        print(f"  {tokens:6}  " + "  ".join(f"{cell:>24}" for cell in cells))
    print(f"  largest logit difference to transformers' own TP, relative: {results['difference to transformers']:.1e}")


def main():
    from commplan.runtime.launch import run_ranks

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--stack", action="append", choices=("qwen", "mla"))
    parser.add_argument("--plan", action="append", default=[], metavar="STACK=FILE")
    parser.add_argument("--json", help="also write all figures here")
    options = parser.parse_args()
    planned = dict(text.split("=", 1) for text in options.plan)
    everything = {}
    for name in options.stack or ("qwen", "mla"):
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoint(name, options.layers, folder)
            results = run_ranks(rank_main, 2, name, folder, planned.get(name), options.rounds, timeout_s=420)[0]
        print_table(name, options.layers, results)
        everything[name] = results
    if options.json:
        Path(options.json).write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
