"""An order of what is stored in memory that a bus leads to. Device functions only."""

from __future__ import annotations

import triton
import triton.language as tl

_EMULATED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def fence():
    """What was stored before is seen before what is stored behind it, by whoever shares the memory; loads behind it see
    what was there when those before it were made."""
    if not _EMULATED:
        tl.inline_asm_elementwise(
            "fence.acq_rel.sys; mov.u32 $0, 0;", "=r,r", [0], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def tell(flag, number):
    """Store a number, int64, behind all that this program has stored. By one thread, whose fence is that of all: they
    have met at a barrier before."""
    tl.debug_barrier()
    if _EMULATED:
        tl.store(flag, number)
    else:
        tl.inline_asm_elementwise(
            """
            {
                .reg .pred first;
                .reg .b32 thread;
                mov.u32 thread, %tid.x;
                setp.eq.u32 first, thread, 0;
                @first fence.acq_rel.sys;
                @first st.relaxed.sys.global.u64 [$1], $2;
                mov.u32 $0, 0;
            }
            """,
            "=r,l,l",
            [flag.to(tl.int64, bitcast=True), number],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def told():
    """What the first thread has seen stored comes before what any thread loads behind this."""
    if not _EMULATED:
        tl.inline_asm_elementwise(
            """
            {
                .reg .pred first;
                .reg .b32 thread;
                mov.u32 thread, %tid.x;
                setp.eq.u32 first, thread, 0;
                @first fence.acq_rel.sys;
                mov.u32 $0, 0;
            }
            """,
            "=r,r",
            [0],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    tl.debug_barrier()
