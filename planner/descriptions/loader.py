"""From names and paths to one checked Setup: deployment, model, hardware, its calibrations, executor."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..executors import load_executor
from ..strategy.errors import CommplanError, InputError, did_you_mean
from ..strategy.file.document import STRATEGY_SCHEMA
from ..strategy.files import IS_A_FOLDER, why_no_file
from ..strategy.lines_of_files import located
from ..strategy.yaml_file import parse_yaml, read_mapping, refuse_control_characters
from .base import build
from .calibration import Calibration
from .checks import check
from .deployment import DEPLOYMENT_SCHEMA, Deployment
from .given import SOURCE, given_tables, unused_imports, unused_tables, with_figures
from .hardware import HARDWARE_SCHEMA, Hardware
from .hub_cache import CONFIG, cached_config, is_hub_name, not_cached
from .huggingface import model_fields
from .lending import lenders_of
from .model import Model
from .setup import Setup, UsedCalibration
from .weight_types import WEIGHT_TYPES

if TYPE_CHECKING:
    from .sensitivity import Sensitivity

_ENDINGS = (".yaml", ".yml", ".json")


def preset_names(folder: str) -> tuple[str, ...]:
    """Names of the presets in `models`, `hardware`, `calibrations` or `deployments`."""
    root = files("commplan.configs") / folder
    return tuple(sorted(p.name.removesuffix(".yaml") for p in root.iterdir() if p.name.endswith(".yaml")))


def find(name: str, folder: str, beside: str | None, field: str) -> Path:
    """The file of a preset or path; relative paths are looked up beside the file that names them, then here.

    A model may also be a folder with a config.json, or the name of one in the Hugging Face cache of this machine.
    """
    if name in (names := preset_names(folder)):
        return Path(str(files("commplan.configs") / folder / f"{name}.yaml"))
    candidates = [base / name for base in ([Path(beside).parent] if beside else []) + [Path()]] if name else []
    try:
        for candidate in candidates:
            if candidate.is_file():
                return candidate
            if folder == "models" and (candidate / CONFIG).is_file():
                return candidate / CONFIG
        there = any(candidate.exists() for candidate in candidates)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=beside, field=field, value=name) from None
    if folder == "models" and not there and is_hub_name(name) and not name.endswith(_ENDINGS):
        if (cached := cached_config(name, field, beside)) is not None:
            return cached
        raise InputError(not_cached(name, names), file=beside, field=field, value=name)
    if there or "/" in name or name.endswith(_ENDINGS):
        reason = next((why_no_file(c) for c in candidates if c.exists()), "no such file")
        if folder == "models" and reason == IS_A_FOLDER:
            reason = f"is a folder without a {CONFIG}; give that of a checkpoint, or a file"
        raise InputError(reason, file=beside or name, field=field, value=name)
    raise InputError(
        f"no preset of that name; {did_you_mean(name, names)} (or give the path of a file)",
        file=beside,
        field=field,
        value=name,
    )


def load_setup(deployment: str, overrides: tuple[str, ...] = ()) -> Setup:
    """Read a deployment (preset or path) and all it names; `overrides` are `field=value` texts, applied first."""
    path = find(deployment, "deployments", None, "deployment")
    data = read_mapping(path)
    _refuse_strategy_file(data, str(path))
    parts = _Parts(str(path), data)
    for text in overrides:
        parts.override(text)
    return parts.build()


def _refuse_strategy_file(data: dict[str, Any], file: str) -> None:
    schema, family = data.get("schema"), STRATEGY_SCHEMA.rpartition("/")[0]
    if isinstance(schema, str) and schema.startswith(f"{family}/"):
        why = (
            f"should be '{DEPLOYMENT_SCHEMA}': this is a strategy file, what `plan` makes of a deployment; "
            "`explain --strategy FILE` says what it does, `validate FILE` whether it is legal"
        )
        raise located(InputError(why, file=file, field="schema", value=schema))


def setup_of(deployment: dict[str, Any], file: str) -> Setup:
    """The setup of a deployment that is not written yet; what it names is looked up as from `file`."""
    return _Parts(file, deployment).build()


_NOT_OF_LENT = tuple(f"hardware.links.intra_node.{name}" for name in ("latency_us", "collective_overhead_us"))
"""Figures of a link that say nothing of a table that is borrowed."""


class _Parts:
    """Raw mappings of a deployment and the files it names, before validation, so that overrides can reach them."""

    def __init__(self, file: str, deployment: dict[str, Any]) -> None:
        self.file = file
        self._given = deployment  # as the file has it
        self.deployment = copy.deepcopy(deployment)
        self.deeper: dict[str, list[tuple[list[str], Any]]] = {"model": [], "hardware": []}

        self.overridden: dict[str, Any] = {}  # in the order in which they act
        self.tables: Any = None  # hardware.tables, as given
        self.machine: dict[str, Any] | None = None  # hardware, where the whole of it is given
        self._hardware_file = self._model_file = ""

    def override(self, text: str) -> None:
        """Apply `field=value`; `hardware.x.y` and `model.x` reach into the files that the deployment names."""
        field, separator, value_text = text.partition("=")
        field = field.strip()
        if not separator or not field or any(not part for part in field.split(".")):
            raise InputError("an override is written FIELD=VALUE, as in parallelism.tp=4", field="--set", value=text)
        if not value_text.strip():
            raise InputError("an empty value; write null for none", file="--set", field=field)
        try:
            value = parse_yaml(value_text)
            refuse_control_characters(value)
        except InputError as error:
            raise InputError(error.message, file="--set", field=field, value=value_text) from None
        keys = field.split(".")
        if nested := _nested(keys[0]):
            raise InputError(f"no such field; did you mean '{nested}'?", file="--set", field=field)
        self.overridden.pop(field, None)
        self.overridden[field] = copy.deepcopy(value)
        if keys == ["hardware", "tables"]:
            self.tables = value
        elif keys == ["hardware"] and isinstance(value, dict):
            self.machine = with_figures({"schema": HARDWARE_SCHEMA, "name": SOURCE, "description": SOURCE} | value, ())
            self.deployment["hardware"] = self.machine["name"]
        elif keys[0] in self.deeper and len(keys) > 1:
            self.deeper[keys[0]].append((keys[1:], value))
        else:
            self.machine = None if keys == ["hardware"] else self.machine
            _put(self.deployment, keys, value, field)

    def build(self) -> Setup:
        """Validate every part, then the parts against each other."""
        try:
            return self._build()
        except InputError as error:
            for each in (error, *error.others):
                self._blame(each)
                each.in_file(self.file)
            raise located(error) from None

    def _blame(self, error: CommplanError) -> None:
        """Where an override is at fault, say so: the file does not hold that value."""
        prefix = {self._hardware_file: "hardware.", self._model_file: "model."}.get(error.file or "", "")
        field = f"{prefix}{error.field}"
        files = {"hardware", "model"} if prefix and error.file != "--set" else set()  # given as a whole, by their path
        at_fault = [given for given in self.overridden if given not in files]
        if any(field == given or field.startswith((f"{given}.", f"{given}[")) for given in at_fault):
            error.file, error.field, error.line = "--set", field, None
        elif not (prefix or self._holds(field)) and any(given.startswith(f"{field}.") for given in at_fault):
            error.file, error.line = "--set", None  # a section that is there by what was set inside of it

    def _holds(self, field: str) -> bool:
        """True of what the file itself says something of."""
        *above, key = field.split(".")
        section = _get(self._given, above)
        return isinstance(section, dict) and key in section

    def _build(self) -> Setup:
        deployment = build(Deployment, self.deployment, self.file)
        model = _in_role(self._model(deployment.model), deployment)
        deployment, said = with_checkpoint(deployment, model)
        hardware, measured_on = self._hardware(deployment.hardware)
        executor = load_executor(deployment.executor)
        executor = executor.on(hardware.compute_capability, deployment.parallelism.tp)
        calibrations, sensitivity = self._calibrations(hardware), self._sensitivity(deployment, model)
        notes = [
            *(f"{model.name}: {sentence}" for sentence in model.assumed),
            *said,
            *([self._note(measured_on)] if measured_on is not None else []),
        ]
        if self.tables is not None:
            given = given_tables(self.tables, hardware, executor, deployment.dtypes.activations)
            calibrations.insert(0, UsedCalibration(given, None, is_given=True))
            notes += unused_tables(given, _group_sizes(deployment))
        notes += unused_imports((used.calibration for used in calibrations), _group_sizes(deployment))
        used = tuple(calibrations)
        setup = Setup(deployment, model, hardware, used, executor, self.file, sensitivity, tuple(notes), measured_on)
        check(setup)
        lent = tuple(lent_to(setup))
        unmoved = [field for field in self.overridden if field.startswith(_NOT_OF_LENT)] if lent else []
        if unmoved:
            notes.append(f"{', '.join(unmoved)}: of formulas alone; borrowed tables go by the bandwidth of a link")
        return replace(setup, lent=lent, notes=tuple(notes), overrides=self.overridden)

    def _model(self, name: str) -> Model:
        path = find(name, "models", self.file, "model")
        self._model_file = str(path)
        data = read_model_mapping(path)
        for keys, value in self.deeper["model"]:
            _put(data, keys, value, "model." + ".".join(keys))
        return build(Model, data, str(path))

    def _hardware(self, name: str) -> tuple[Hardware, Hardware | None]:
        """The machine; and where its link inside a node is overridden, the one that its tables were measured on."""
        if self.machine is not None:
            self._hardware_file, data = "--set", copy.deepcopy(self.machine)
        else:
            path = find(name, "hardware", self.file, "hardware")
            self._hardware_file, data = str(path), read_mapping(path)
        link = copy.deepcopy(_get(data, ["links", "intra_node"]))
        for keys, given in self.deeper["hardware"]:
            field = "hardware." + ".".join(keys)
            old = _get(data, keys)
            if given in (old, _get(data, [*keys, "value"])):
                continue
            _put(data, keys, with_figures(given, keys), field)
            if keys[-1] == "value" and isinstance(old, int | float):  # the number is another than its source gave
                _get(data, keys[:-1]).update(provenance="assumed", source=SOURCE)
        hardware = build(Hardware, data, self._hardware_file)
        if not hardware.calibrations or link == data["links"]["intra_node"]:
            return hardware, None
        own = build(Hardware, {**data, "links": {**data["links"], "intra_node": link}}, self._hardware_file)
        same = own.links.intra_node.figures == hardware.links.intra_node.figures
        return hardware, None if same else own

    def _note(self, measured_on: Hardware) -> str:
        fields = list(dict.fromkeys(f for f in self.overridden if f.startswith("hardware.links")))
        return (
            f"{', '.join(fields)} {'is' if len(fields) == 1 else 'are'} overridden: times in the tables measured on "
            f"{measured_on.name} are scaled by what the formulas make of the new link"
        )

    def _calibrations(self, hardware: Hardware) -> list[UsedCalibration]:
        used = []
        for index, use in enumerate(hardware.calibrations):
            path = find(use.file, "calibrations", self._hardware_file, f"calibrations[{index}].file")
            calibration = build(Calibration, read_mapping(path), str(path))
            refused = None if use.transferred_because else calibration.span_refused(hardware.devices_per_node)
            if refused is not None:
                field = f"calibrations[{index}].file"
                raise InputError(refused, file=self._hardware_file, field=field, value=use.file)
            used.append(UsedCalibration(calibration, use.transferred_because))
        return used

    def _sensitivity(self, deployment: Deployment, model: Model) -> Sensitivity | None:
        name = deployment.numerics.sensitivity
        if name is None:
            return None
        from .sensitivity import read_sensitivity

        path = Path(self.file).parent / name
        return read_sensitivity(path if path.is_file() else Path(name), model.num_hidden_layers)


def _in_role(model: Model, deployment: Deployment) -> Model:
    """What runs in the role that a deployment gives a model."""
    if deployment.model_role != "mtp":
        return model
    if not model.num_nextn_predict_layers:
        why = (
            f"the file of {model.name} names no MTP layers: say model.num_nextn_predict_layers where its checkpoint "
            "has some; a draft model of its own is a `draft`"
        )
        raise InputError(why, field="model_role", value=deployment.model_role)
    return model.drafts()


def lent_to(setup: Setup) -> Iterator[UsedCalibration]:
    """The tables that the machine of a setup borrows for its groups."""
    for lender, scale in lenders_of(setup.hardware, setup.parallelism):
        path = find(lender.calibration, "calibrations", None, "calibration")
        calibration = build(Calibration, read_mapping(path), str(path))
        ranks = setup.parallelism.tp
        reached = f"collectives over {ranks} ranks reach {lender.reached_by(ranks):.4g} GB/s on it"
        why = f"the nearest {lender.topology} link with tables; {reached}"
        yield UsedCalibration(calibration, why if scale == 1 else f"{why}; its sizes times {scale:.3g}", scale)


def with_checkpoint(deployment: Deployment, model: Model) -> tuple[Deployment, tuple[str, ...]]:
    """The deployment with the weights of the checkpoint where it names no type, and what is to be said of its own."""
    dtypes, checkpoint = deployment.dtypes, model.quantization
    if "weights" not in dtypes.model_fields_set:
        if checkpoint is None:
            return deployment, ()
        known = dtypes.model_copy(update={"weights": checkpoint.weights})
        return deployment.model_copy(update={"dtypes": known}), ()
    if checkpoint is None:
        has, same = "not quantised", not WEIGHT_TYPES[dtypes.weights].quantized
    else:
        has, same = f"in {checkpoint.weights}", dtypes.weights == checkpoint.weights
    if same:
        return deployment, ()
    return deployment, (
        f"dtypes.weights is {dtypes.weights}, and the checkpoint of {model.name} is {has} (its quantization_config): "
        "a converted copy of it is meant",
    )


def load_model(name: str, beside: str | None = None) -> Model:
    """A model by preset name or path (a commplan YAML, or a Hugging Face config.json)."""
    path = find(name, "models", beside, "model")
    return build(Model, read_model_mapping(path), str(path))


def load_hardware(name: str, beside: str | None = None) -> Hardware:
    """A machine by preset name or path."""
    path = find(name, "hardware", beside, "hardware")
    return build(Hardware, read_mapping(path), str(path))


def read_model_mapping(path: Path, plain: str | None = None) -> dict[str, Any]:
    """The fields of a model, from a commplan model file or a Hugging Face config.json; `plain`: see `model_fields`."""
    data = read_mapping(path, infinite=True)
    if "schema" in data:
        return data
    return model_fields(data, str(path), plain)


def _group_sizes(deployment: Deployment) -> tuple[int, ...]:
    """Ranks of every group that a deployment has."""
    p = deployment.parallelism
    return tuple(size for size in (p.tp, p.tp // p.attn_dp, p.attn_dp) if size > 1)


def _nested(key: str) -> str | None:
    """The path of a deployment's field that was named without its section, as in `tp`."""
    if key in Deployment.model_fields:
        return None
    for section, field in Deployment.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {})
        if key in inner:
            return f"{section}.{key}"
    return None


def _put(data: dict[str, Any], keys: list[str], value: Any, field: str) -> None:
    for key in keys[:-1]:
        child = data.setdefault(key, {})
        if not isinstance(child, dict):
            raise InputError(f"'{key}' holds a plain value, so nothing lies below it", file="--set", field=field)
        data = child
    data[keys[-1]] = value


def _get(data: Any, keys: list[str]) -> Any:
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            return None
        data = data[key]
    return data
