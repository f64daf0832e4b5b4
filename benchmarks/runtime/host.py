"""What the host needs for a launch and a call within an eager forward, as `commplan calibrate` measures it.

    python benchmarks/runtime/host.py              # one GPU, under a minute: an ordinary launch, and add_rms_norm
    python benchmarks/runtime/host.py --ranks 2    # two GPUs: NCCL and our own kernels too

Beside each figure stands what the same call takes in a loop of nothing else, where caches are warm.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

SAMPLES, LOOP = 15, 200
WIDTH, ROWS = 5120, 8


def rank_main(backend_name):
    """{what: (us within a forward, us in a loop)} on this rank."""
    import torch

    from commplan.runtime.backends import load_backend
    from commplan.runtime.calibration.host import LAUNCH, HostTimer
    from commplan.runtime.calibration.point_calls import PlainNorm
    from commplan.runtime.calibration.timing import Timer, no_gradients
    from commplan.runtime.ranks.groups import Group, control_group
    from commplan.runtime.ranks.rendezvous import meet

    backend = load_backend(backend_name)
    device = backend.device(int(os.environ.get("LOCAL_RANK", "0")))
    control, group = Group("tp", None, 1, 0), None
    if "RANK" in os.environ:
        ranks = meet(120.0)
        ranks.join(backend.torch_name, device, 300.0)
        control = control_group(300.0)
        group = Group("tp", torch.distributed.group.WORLD, control.size, control.rank)
    with no_gradients():
        x = torch.randn(ROWS, WIDTH, dtype=torch.bfloat16, device=device)
        residual, norm = torch.randn_like(x), PlainNorm(WIDTH, torch.bfloat16, device)
        calls = {"torch add": lambda: x + residual, "add_rms_norm": lambda: backend.add_rms_norm(x, residual, norm)}
        if group is not None:
            calls[backend.name] = lambda: backend.all_reduce(x, group)
            calls |= own_calls(backend, group, device, x, residual, norm)
        host = HostTimer(device, Timer(device, control))
        found = {LAUNCH: (statistics.median(host.launches(SAMPLES)), None)}
        for name, call in calls.items():
            found[name] = (statistics.median(host.calls(call, SAMPLES)), in_a_loop(call, device))
    return found


def own_calls(backend, group, device, x, residual, norm):
    """All-reduce by kernels of our own, alone and with the norm; nothing where they cannot run."""
    from commplan.runtime.kernels.peer_impls import room_of

    if backend.peer_limits is None:
        return {}
    peers = backend.peers(group, device, x.dtype, WIDTH, room_of("all_reduce", None, ROWS, 1))
    return {
        "commplan_triton": lambda: peers.all_reduce(x),
        "commplan_triton_norm": lambda: peers.all_reduce_norm(x, residual, norm.weight, norm.variance_epsilon),
    }


def in_a_loop(call, device):
    """us of a call among nothing but itself."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(SAMPLES):
        wait()
        start = time.perf_counter()
        for _ in range(LOOP):
            call()
        times.append((time.perf_counter() - start) / LOOP * 1e6)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--backend", default="nccl")
    options = parser.parse_args()
    if options.ranks == 1:
        results = [rank_main(options.backend)]
    else:
        from commplan.runtime.ranks.spawning import run_ranks

        results = run_ranks(rank_main, options.ranks, options.backend, timeout_s=420)
    print(f"{'us, the slowest rank':28} {'in a forward':>12} {'in a loop':>10}")
    slowest = {name: max((rank[name] for rank in results), key=lambda pair: pair[0]) for name in results[0]}
    for name, (within, alone) in slowest.items():
        print(f"{name:28} {within:12.1f} {'' if alone is None else f'{alone:10.1f}'}")
    print(json.dumps(slowest))


if __name__ == "__main__":
    main()
