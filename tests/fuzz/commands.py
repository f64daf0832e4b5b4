"""For every kind of file the commands that read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """A command line. `%o` stands for a file that it writes, which may exist afterwards if it succeeded.

    right_code  how it ends where nothing is wrong with the files
    """

    text: str
    output: str | None = None
    weight: int = 3
    right_code: int = 0

    @property
    def arguments(self) -> list[str]:
        return self.text.replace("%o", str(self.output)).split()


def reading(text: str, output: str | None = None, weight: int = 3) -> Reading:
    return Reading(text, output, weight)


def refused(text: str) -> Reading:
    return Reading(text, None, 1, 2)


SENSITIVE = "--set numerics.sensitivity=sensitivity.yaml --set numerics.error_budget=0.02"
FOR_VLLM = "--set hardware.compute_capability=9.0 --set parallelism.attn_dp=1"
OF_CHECKPOINT = "strategy.yaml --model checkpoint"

FILES = {
    "deployment": "deployment.yaml",
    "model": "model.yaml",
    "hardware": "hardware.yaml",
    "calibration": "calibration.yaml",
    "strategy": "strategy.yaml",
    "sensitivity": "sensitivity.yaml",
    "back-test case": "case.yaml",
    "config.json": "checkpoint/config.json",
    "checkpoint": "checkpoint/model.safetensors",
}
SPOILED_OFTEN = {"deployment": 3, "strategy": 3, "model": 2, "hardware": 2, "calibration": 2, "checkpoint": 1}

_PLANNED = [
    reading("plan deployment.yaml -o %o", "out.yaml", 5),
    reading("plan deployment.yaml"),
    reading("explain deployment.yaml"),
    reading("what-if deployment.yaml --vary tokens=1,64"),
]
_ROTATED = reading("rotate checkpoint -o %o", "rotated")
_CHECKED = [
    reading(f"check {OF_CHECKPOINT} --max-tokens 2"),
    reading(f"run {OF_CHECKPOINT} --tokens 1,2 --max-new-tokens 1"),
]
# An output that is an input: refused, whatever else is wrong.
_ONTO_THEMSELVES = [
    refused("plan deployment.yaml -o deployment.yaml"),
    refused("plan deployment.yaml -o model.yaml"),
    refused("plan deployment.yaml -o hardware.yaml"),
    refused("what-if deployment.yaml --vary tokens=8 --csv deployment.yaml"),
]
READERS: dict[str, list[Reading]] = {
    "deployment": [
        *_PLANNED,
        *_ONTO_THEMSELVES,
        reading("plan deployment.yaml --cross-check", weight=1),
        reading("explain deployment.yaml --strategy strategy.yaml --layer 0"),
        reading("what-if deployment.yaml --vary tp=1,2 --csv %o", "out.csv"),
        reading("what-if deployment.yaml --vary tokens=8 --html %o", "out.html", 1),
        reading("report strategy.yaml --deployment deployment.yaml -o %o", "out.html", 1),
        reading("calibrate deployment.yaml -o %o", "out.yaml", 1),
        reading("verify strategy.yaml --deployment deployment.yaml", weight=1),
        reading(f"export vllm deployment.yaml {FOR_VLLM}"),
        reading("export sglang-table deployment.yaml --set hardware.compute_capability=9.0"),
    ],
    "model": [
        *_PLANNED,
        reading("import-model model.yaml -o %o", "out.yaml"),
        reading("import-model model.yaml --name other"),
        reading("init deployment model.yaml --hardware hardware.yaml -o %o", "out.yaml"),
        refused("import-model model.yaml -o model.yaml"),
    ],
    "hardware": [
        *_PLANNED,
        reading("what-if deployment.yaml --vary link_bandwidth=10,100 --tokens 8"),
        reading("plan deployment.yaml --set hardware.links.intra_node.latency_us=2"),
        reading("backtest case.yaml"),
        reading("calibrate deployment.yaml -o %o", "out.yaml", 1),
        reading("init deployment model.yaml --hardware hardware.yaml -o %o", "out.yaml"),
    ],
    "calibration": [
        *_PLANNED,
        refused("plan deployment.yaml -o calibration.yaml"),
        reading("what-if deployment.yaml --vary link_bandwidth=10,100 --tokens 8"),
        reading("plan deployment.yaml --set hardware.links.intra_node.latency_us=2"),
        reading("backtest --tables calibration.yaml"),
        reading(f"export vllm deployment.yaml {FOR_VLLM}"),
        reading("export sglang-table deployment.yaml --set hardware.compute_capability=9.0"),
        reading("backtest case.yaml"),
    ],
    "strategy": [
        reading("validate strategy.yaml", weight=5),
        reading("diff strategy.yaml other.yaml"),
        reading("diff other.yaml strategy.yaml"),
        reading("diff other.yaml strategy.yaml --deployment deployment.yaml"),
        reading("validate strategy.yaml --deployment deployment.yaml"),
        reading("explain deployment.yaml --strategy strategy.yaml"),
        reading("export sglang strategy.yaml"),
        refused(f"export vllm deployment.yaml {FOR_VLLM} --strategy strategy.yaml"),
        refused("launch sglang strategy.yaml --model-path nowhere --dry-run"),
        reading("report strategy.yaml --deployment deployment.yaml", "strategy.html", 1),
        refused("report strategy.yaml --deployment deployment.yaml -o strategy.yaml"),
        reading("verify strategy.yaml --deployment deployment.yaml", weight=1),
        refused("check strategy.yaml --model ."),
    ],
    "sensitivity": [
        reading(f"plan deployment.yaml {SENSITIVE} -o %o", "out.yaml"),
        reading(f"explain deployment.yaml {SENSITIVE}"),
        reading(f"what-if deployment.yaml {SENSITIVE} --vary error_budget=0.01,0.1 --tokens 8"),
    ],
    "back-test case": [
        reading("backtest case.yaml", weight=5),
        reading("backtest case.yaml --markdown"),
    ],
    "config.json": [
        reading("import-model checkpoint/config.json"),
        reading("import-model checkpoint/config.json -o %o", "out.yaml"),
        reading("plan deployment.yaml -o %o", "out.yaml"),
        reading("plan deployment.yaml --set parallelism.tp=2"),
        refused("launch sglang strategy.yaml --model-path checkpoint --dry-run"),
        _ROTATED,
        *_CHECKED,
    ],
    "checkpoint": [_ROTATED, *_CHECKED],
}
