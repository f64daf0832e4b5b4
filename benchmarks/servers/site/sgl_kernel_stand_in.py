"""In place of the compiled ops of sglang-kernel 0.4.10 that a dense or MoE decoder of bf16 uses, in Triton and torch.

The wheel's ops are built for torch 2.14. Everything else of SGLang's (attention, its own all-reduce, rope, routing, KV
cache) is Triton or compiled on the machine, and is the real thing. The norms read and write each value once, as the
compiled ones do: beside a norm inside a collective they are no straw man (`sgl_kernel.stand_in.times` prints theirs).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["fused_add_rmsnorm", "moe_align_block_size", "moe_sum_reduce", "rmsnorm", "silu_and_mul", "weak_ref_tensor"]


@triton.jit
def _norm(x_ptr, weight_ptr, out_ptr, x_stride, out_stride, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / width + eps)
    tl.store(out_ptr + row * out_stride + columns, (x * scale * weight).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _add_norm(x_ptr, residual_ptr, weight_ptr, x_stride, residual_stride, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    residual = tl.load(residual_ptr + row * residual_stride + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    total = x + residual
    tl.store(residual_ptr + row * residual_stride + columns, total.to(residual_ptr.dtype.element_ty), mask=inside)
    scale = tl.rsqrt(tl.sum(total * total, axis=0) / width + eps)
    tl.store(x_ptr + row * x_stride + columns, (total * scale * weight).to(x_ptr.dtype.element_ty), mask=inside)


def _launch(width: int) -> dict[str, int]:
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": min(16, max(1, block // 512))}


def rmsnorm(input, weight, eps=1e-6, out=None, enable_pdl=None):
    """norm(input) * weight over the last axis; into `out` where that is given."""
    out = torch.empty_like(input) if out is None else out
    width = input.shape[-1]
    x, y = (input, out) if input.dim() == 2 else (input.reshape(-1, width), out.view(-1, width))
    if x.shape[0]:
        _norm[(x.shape[0],)](x, weight, y, x.stride(0), y.stride(0), width, eps, **_launch(width))
    return out


def fused_add_rmsnorm(input, residual, weight, eps=1e-6, enable_pdl=None):
    """residual += input; input = norm(residual) * weight. In place."""
    rows, width = input.shape
    if rows:
        _add_norm[(rows,)](input, residual, weight, input.stride(0), residual.stride(0), width, eps, **_launch(width))


def silu_and_mul(input, out=None):
    """silu of the first half of the last axis times the second."""
    half = input.shape[-1] // 2
    product = torch.nn.functional.silu(input[..., :half]) * input[..., half:]
    return product if out is None else out.copy_(product)


def moe_align_block_size(
    topk_ids,
    num_experts,
    block_size,
    sorted_token_ids,
    experts_ids,
    num_tokens_post_pad,
    cumsum_buffer,
    pad_sorted_token_ids=False,
    ignore_invalid_expert=False,
):
    """Rows sorted by expert, in blocks: by the kernel that SGLang compiles on the machine for other callers.

    Without expert parallelism every expert is valid, so that there is nothing to ignore.
    """
    from sglang.kernels.ops.moe.moe_align import moe_align_block_size as compiled_here

    outputs = (sorted_token_ids, experts_ids, num_tokens_post_pad, cumsum_buffer)
    compiled_here(topk_ids, num_experts, block_size, *outputs, pad_sorted_token_ids)


def moe_sum_reduce(input_tensor, output_tensor, routed_scaling_factor=1.0):
    """[T, experts of a token, H] to their sum [T, H], scaled: by the Triton kernel that SGLang has for few tokens."""
    from sglang.kernels.ops.moe.fused_moe_triton_kernels import moe_sum_reduce_triton

    moe_sum_reduce_triton(input_tensor, output_tensor, routed_scaling_factor)


def weak_ref_tensor(tensor):
    """A tensor over the same memory that does not keep it alive."""
    if not isinstance(tensor, torch.Tensor):
        return tensor
    storage = tensor.untyped_storage()
    alias = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), tensor.device, storage.nbytes())
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(alias, tensor.storage_offset(), tensor.shape, tensor.stride())


def times() -> None:
    """Print the norm with its add beside commplan's of one pass, in us, by rows of 5120."""
    from commplan.runtime.kernels.add_rms_norm import add_rms_norm

    weight = torch.ones(5120, device="cuda", dtype=torch.bfloat16)
    for rows in (1, 16, 64, 1024, 4096, 16384):
        x, residual = (torch.randn(rows, 5120, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        calls = (
            lambda x=x, residual=residual: fused_add_rmsnorm(x, residual, weight, 1e-6),
            lambda x=x, residual=residual: add_rms_norm(x, residual, weight, 1e-6),
        )
        ours, other = (1e3 * triton.testing.do_bench_cudagraph(call, rep=30) for call in calls)
        print(f"add + norm of {rows} rows: stand-in {ours:.1f} us, commplan's {other:.1f} us", flush=True)


if __name__ == "__main__":
    times()
