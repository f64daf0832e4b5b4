"""A plugin for SGLang: multi-head latent attention on torch_native takes the absorbed path."""

from typing import Any


def register() -> None:
    """Called by SGLang in each of its processes."""
    from sglang.srt.models.deepseek_common import attention_backend_handler as handler

    def absorbed(attention: Any, batch: Any) -> Any:
        return handler.AttnForwardMethod.MLA

    handler.AttentionBackendRegistry.register("torch_native", absorbed)
