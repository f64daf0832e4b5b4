"""Runs when a Python of the tests starts: declares two operators of torchvision's just before it is imported."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

_declared: list[Any] = []  # a torch Library takes its operators along when it is collected


class _BeforeTorchvision(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == "torchvision" and not _declared:
            import torch

            library = torch.library.Library("torchvision", "DEF")
            _declared.append(library)
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")


sys.meta_path.insert(0, _BeforeTorchvision())
