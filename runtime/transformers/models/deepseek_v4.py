"""DeepSeek-V4: heads on one pooled key-value head, which every rank has; outputs are projected by group of heads."""

from . import Adapter

ADAPTER = Adapter(
    "DeepseekV4ForCausalLM",
    "deepseek_v4",
    column=("q_b_proj", "sinks", "o_a_proj"),
    row=("o_b_proj",),
    counts=("num_key_value_groups", "o_a_proj.n_groups", "config.o_groups"),
)
