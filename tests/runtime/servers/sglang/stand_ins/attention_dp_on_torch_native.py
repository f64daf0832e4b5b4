"""A plugin for SGLang: the attention backend torch_native pads sequences for attention DP like its CPU sibling."""

from typing import Any


def register() -> None:
    """Called by SGLang in each of its processes."""
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    def fill_value(backend: Any) -> int:
        return 1

    TorchNativeAttnBackend.get_cpu_graph_seq_len_fill_value = fill_value
