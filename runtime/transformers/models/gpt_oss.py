"""gpt-oss: grouped-query attention with a sink by head."""

from . import Adapter

ADAPTER = Adapter("GptOssForCausalLM", "gpt_oss", column=("q_proj", "sinks"), kv=("k_proj", "v_proj"))
