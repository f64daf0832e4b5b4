"""`commplan init deployment`: a model and a machine become a complete deployment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ..descriptions.weight_types import WEIGHT_TYPES
from ..strategy.command_line.option_types import FILLED, RANKS, TOKENS, Name, OutputFile
from ..strategy.command_line.terminal import echo
from . import options

if TYPE_CHECKING:
    from ..answers.new_deployment import NewDeployment
    from ..strategy.errors import CommplanError


@click.command("deployment", short_help="Write a deployment of a model on a machine.")
@click.argument("model", type=options.MODEL)
@click.option(
    "--hardware", type=options.HARDWARE, help="Preset, or a hardware file (`commplan init hardware` writes one)."
)
@click.option("--executor", type=FILLED, help="Who runs the plan (default: sglang where it can, else plan_only).")
@click.option("--tp", type=RANKS, help="Ranks of tensor parallelism (default: the fewest whose memory holds the work).")
@click.option("--weights", type=click.Choice(tuple(WEIGHT_TYPES)), help="Their type (default: the checkpoint's).")
@click.option("--prefill-tokens", type=TOKENS, default=16384, show_default=True, help="Largest forward of prefill.")
@click.option("--prompt-tokens", type=TOKENS, default=4096, show_default=True, help="New tokens of a request.")
@click.option("--requests", type=TOKENS, default=256, show_default=True, help="Requests that decode together.")
@click.option("--context-tokens", type=TOKENS, default=4096, show_default=True, help="Cached tokens of each.")
@click.option("--name", type=Name(), help="Name of the deployment (default: from model, machine and tp).")
@click.option("-o", "--output", type=OutputFile(), help="Where to write the deployment (default: NAME.yaml).")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@options.as_json
def command(
    model: str,
    hardware: str | None,
    executor: str | None,
    tp: int | None,
    weights: str | None,
    prefill_tokens: int,
    prompt_tokens: int,
    requests: int,
    context_tokens: int,
    name: str | None,
    output: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a complete deployment of MODEL: a preset, a config.json, its folder, or a model in the Hugging Face cache.

    The type of the weights is that of its quantization_config; tp is the smallest that holds weights and KV cache.
    """
    from ..answers.new_deployment import Wish, new_deployment
    from ..strategy.errors import CommplanError
    from ..strategy.files import write_text_atomically
    from .init_files import file_name, target

    _check_executor(executor)
    if name is not None:
        file_name(name)
    hardware = _hardware(hardware, ask=not as_json)
    folder = os.path.dirname(output) if output is not None else ""
    wish = Wish(
        model=_seen_from(folder, model, "models"),
        hardware=_seen_from(folder, hardware, "hardware"),
        executor=executor,
        tp=tp,
        weights=weights,
        prefill_tokens=prefill_tokens,
        prompt_tokens=prompt_tokens,
        requests=requests,
        context_tokens=context_tokens,
    )
    unwritten = os.path.join(folder, "deployment.yaml")
    try:
        made = new_deployment(wish, unwritten)
    except CommplanError as error:
        raise _about_options(error, unwritten) from None
    name = name or _name(made)
    path = target(output, f"{name}.yaml", force)
    write_text_atomically(path, made.text(name))
    _print(made, path, as_json)


def _check_executor(executor: str | None) -> None:
    from ..strategy.errors import InputError, did_you_mean
    from ..strategy.executor_file import executor_names

    if executor is not None and executor not in (names := executor_names()):
        text = f"no such executor; {did_you_mean(executor, names)}"
        raise InputError(text, kind="usage", field="--executor", value=executor)


def _hardware(given: str | None, ask: bool) -> str:
    from ..descriptions.loader import find
    from .init_questions import Question, answered

    question = Question("hardware", "Machine: a preset (commplan presets hardware) or a hardware file", FILLED)
    name = str(answered([question], {"hardware": given}, ask)["hardware"])
    find(name, "hardware", None, "--hardware")
    return name


def _seen_from(folder: str, name: str, kind: str) -> str:
    """A name as a file in `folder` says it: paths are relative to that file."""
    from ..descriptions.loader import preset_names

    if name in preset_names(kind) or not os.path.exists(name) or os.path.isabs(name):
        return name
    return os.path.relpath(name, folder or os.curdir)


_OPTIONS = {
    "model": "MODEL",
    "hardware": "--hardware",
    "executor": "--executor",
    "parallelism.tp": "--tp",
    "dtypes.weights": "--weights",
    "modes.prefill.tokens": "--prefill-tokens",
    "modes.decode.tokens": "--requests",
}


def _about_options(error: CommplanError, unwritten: str) -> CommplanError:
    """The same error about the command line: the file that its field belongs to is not written yet."""
    for each in (error, *error.others):
        if each.file == unwritten:
            each.file, each.line = None, None
            each.field = option = _OPTIONS.get(each.field or "", each.field)
            if option is not None and option in _OPTIONS.values() and not _is_given(option):
                each.message += f" (no {option} was given)"
    return error


def _is_given(option: str) -> bool:
    """True of what stands on the command line."""
    context = click.get_current_context()
    name = option.lstrip("-").replace("-", "_").lower()
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _name(made: NewDeployment) -> str:
    import re

    setup = made.sized.setup
    text = f"{setup.model.name}-{setup.hardware.name}-tp{setup.parallelism.tp}".lower()
    return re.sub(r"[^a-z0-9._+-]+", "-", text).strip("-.") + _apart(text)


def _apart(text: str) -> str:
    """What sets a name apart from that of a preset, which would be found first."""
    from ..descriptions.loader import preset_names

    return "-new" if text in preset_names("deployments") else ""


def _print(made: NewDeployment, path: str, as_json: bool) -> None:
    from ..fit.words import gb
    from ..strategy.files import is_standard_output, shown
    from .output import print_json

    setup, fit = made.sized.setup, made.sized.fit
    if as_json:
        print_json(
            {
                "deployment_file": path,
                "deployment": setup.deployment.model_dump(mode="json", by_alias=True),
                "reasons": dict(made.reasons),
                "weights_gb": round(fit.weight_bytes / 1e9, 3),
                "capacity_gb": round(fit.capacity / 1e9, 3),
            }
        )
        return
    deployment = setup.deployment
    options.print_notes(setup)
    echo(f"Written to {shown(path)}")
    echo(f"  {setup.model.name} on {setup.hardware.name}, executor {setup.executor.name}")
    echo(f"  tp {setup.parallelism.tp}: {made.reasons['tp']}")
    echo(f"  weights {deployment.dtypes.weights}: {made.reasons['weights']}")
    echo(f"  a rank holds {gb(fit.weight_bytes)} GB of weights in {gb(fit.capacity)} GB")
    for mode, most in fit.most_tokens.items():
        echo(f"  {mode} ends at {most:,} tokens: {made.reasons[mode]}")
    if not is_standard_output(path):
        echo(f"Next: commplan plan {path} -o {os.path.splitext(path)[0]}.strategy.yaml")
