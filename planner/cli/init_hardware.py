"""`commplan init hardware`: what a data sheet gives becomes a complete hardware file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..descriptions.units import ARITHMETIC, BYTES, LINK_RATE, MEMORY_RATE, Quantity
from ..strategy.command_line.option_types import RANKS, Name, OutputFile
from ..strategy.command_line.terminal import echo
from ..strategy.vendors import VENDORS
from . import options

if TYPE_CHECKING:
    from ..descriptions.new_hardware import DataSheet, NewHardware
    from .init_questions import Question

_TOPOLOGIES = ("switch", "full_mesh", "pcie", "loopback")


class QuantityType(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # no generic in the oldest click
    """A figure, in the unit that the option's name ends in or with a unit of its own. Keeps the text."""

    def __init__(self, quantity: Quantity, can_lack: bool = False) -> None:
        self.quantity, self.can_lack, self.name = quantity, can_lack, quantity.unit

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """The text as it was given; raises InputError where it is no figure of that kind."""
        text = str(value)
        if not (self.can_lack and text == _LACKS):
            self.quantity.read(text, param.opts[-1] if param is not None else None)
        return text


@click.command("hardware", short_help="Write a hardware file from the figures of a data sheet.")
@click.option("--name", type=Name(), help="Name of the machine, as in b300-8.")
@click.option("--vendor", type=click.Choice(VENDORS), help="Whose devices: it decides the library of collectives.")
@click.option("--memory-gb", type=QuantityType(BYTES), metavar="GB", help="Memory of a device.")
@click.option("--memory-gb-per-s", type=QuantityType(MEMORY_RATE), metavar="GB/s", help="Bandwidth of its memory.")
@click.option("--bf16-tflops", type=QuantityType(ARITHMETIC), metavar="TFLOP/s", help="Dense rate in bf16.")
@click.option("--link", type=click.Choice(_TOPOLOGIES), help="How the devices of a node are joined.")
@click.option(
    "--link-gb-per-s",
    type=QuantityType(LINK_RATE),
    metavar="GB/s",
    help="Bandwidth of a device's links inside a node: one direction, all links together.",
)
@click.option("--devices-per-node", type=RANKS, help="Devices that such links join.")
@click.option(
    "--peer-access/--no-peer-access",
    default=None,
    help="Whether devices of a node read each other's memory (default: over pcie no, else as the nearest preset).",
)
@click.option(
    "--fp8-tflops",
    type=QuantityType(ARITHMETIC, can_lack=True),
    metavar="TFLOP/s",
    help="Dense rate in FP8; `none` if the device has none (default: as the nearest preset, in proportion).",
)
@click.option(
    "--int8-tops",
    type=QuantityType(ARITHMETIC, can_lack=True),
    metavar="TOP/s",
    help="Dense rate in INT8; `none` if the device has none (default: the same).",
)
@click.option("--num-nodes", type=RANKS, help="Nodes of the machine (default: 1).")
@click.option(
    "--node-link-gb-per-s",
    type=QuantityType(LINK_RATE),
    metavar="GB/s",
    help="Bandwidth of a device between nodes, one direction; needed where there are several.",
)
@click.option("--source", type=Name(), help="Where the figures come from, as in the title or address of a data sheet.")
@click.option("--like", type=options.HARDWARE, help="Preset that lends the other figures (default: the nearest one).")
@click.option("-o", "--output", type=OutputFile(), help="Where to write the hardware file (default: NAME.yaml).")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@options.as_json
def command(output: str | None, like: str | None, force: bool, as_json: bool, **given: Any) -> None:
    """Write a complete hardware file from the figures of a data sheet.

    Asks for what no option gives, where it runs on a terminal. Figures may have units of their own, as in 80GiB,
    4.8TB/s or 400Gb/s. What a data sheet does not give is taken from the nearest preset and marked `assumed`.
    """
    from ..descriptions.loader import find
    from ..descriptions.new_hardware import lender_of, new_hardware, suspicions
    from ..strategy.files import write_text_atomically
    from .init_files import target
    from .output import print_json

    if like is not None:
        find(like, "hardware", None, "--like")
    if given["num_nodes"] is None and given["node_link_gb_per_s"] is not None:
        given["num_nodes"] = 2
    sheet = _asked(given, ask=not as_json)
    path = target(output, f"{sheet.name}.yaml", force)
    lender = lender_of(sheet, like)
    made = new_hardware(sheet, lender)
    write_text_atomically(path, made.text)
    if as_json:
        print_json(_as_json(made, path, suspicions(sheet, lender)))
        return
    for text in suspicions(sheet, lender):
        options.print_warning(text)
    _print(made, path)


def _asked(given: dict[str, Any], ask: bool) -> DataSheet:
    """The data sheet, of options and answers."""
    from ..descriptions.new_hardware import DataSheet
    from .init_questions import answered

    values = answered(_questions(), given, ask)
    known = {name: str(values[name]) for name in _FIGURES if values.get(name) not in (None, _LACKS)}
    figures = {name: _FIGURES[name].read(text) for name, text in known.items()}
    as_given = {name: text for name, text in known.items() if not _is_bare(text)}
    rates = {name: figures.get(name) for name in ("fp8_tflops", "int8_tops") if values.get(name) is not None}
    source = {"source": values["source"]} if values.get("source") else {}
    return DataSheet(
        name=values["name"],
        vendor=values["vendor"],
        memory_gb=figures["memory_gb"],
        memory_gb_per_s=figures["memory_gb_per_s"],
        bf16_tflops=figures["bf16_tflops"],
        topology=values["link"],
        link_gb_per_s=figures["link_gb_per_s"],
        devices_per_node=values["devices_per_node"],
        num_nodes=values.get("num_nodes") or 1,
        node_link_gb_per_s=figures.get("node_link_gb_per_s"),
        peer_access=values.get("peer_access"),
        rates=rates,
        as_given=as_given,
        **source,
    )


_LACKS = "none"  # a device without such a rate
_FIGURES = {
    "memory_gb": BYTES,
    "memory_gb_per_s": MEMORY_RATE,
    "bf16_tflops": ARITHMETIC,
    "link_gb_per_s": LINK_RATE,
    "fp8_tflops": ARITHMETIC,
    "int8_tops": ARITHMETIC,
    "node_link_gb_per_s": LINK_RATE,
}


def _is_bare(text: str) -> bool:
    return not text.strip()[-1:].isalpha()


def _questions() -> list[Question]:
    """What has to be known, in the order of asking."""
    from .init_files import file_name
    from .init_questions import Question

    lacks = "; `none` if it has none"
    return [
        Question("name", "Name of the machine, as in b300-8", file_name),
        Question("vendor", f"Vendor of the devices ({', '.join(VENDORS)})", click.Choice(VENDORS)),
        Question("memory_gb", "Memory of a device, GB", QuantityType(BYTES)),
        Question("memory_gb_per_s", "Bandwidth of its memory, GB/s", QuantityType(MEMORY_RATE)),
        Question("bf16_tflops", "Dense bf16 rate, TFLOP/s", QuantityType(ARITHMETIC)),
        Question(
            "fp8_tflops",
            f"Dense FP8 rate, TFLOP/s{lacks}; Enter: as the nearest preset, in proportion",
            QuantityType(ARITHMETIC, can_lack=True),
            may_stay_open=True,
        ),
        Question(
            "int8_tops",
            f"Dense INT8 rate, TOP/s{lacks}; Enter: the same",
            QuantityType(ARITHMETIC, can_lack=True),
            may_stay_open=True,
        ),
        Question("devices_per_node", "Devices of a node", RANKS),
        Question("link", f"How they are joined ({', '.join(_TOPOLOGIES)})", click.Choice(_TOPOLOGIES)),
        Question(
            "link_gb_per_s",
            "Bandwidth of a device's links, one direction, all together, GB/s",
            QuantityType(LINK_RATE),
        ),
        Question(
            "peer_access",
            "Do the devices of a node read each other's memory (yes, no); Enter: no",
            click.BOOL,
            may_stay_open=True,
            only_if=lambda values: values.get("link") == "pcie",
        ),
        Question("num_nodes", "Nodes; Enter: 1", RANKS, may_stay_open=True),
        Question(
            "node_link_gb_per_s",
            "Bandwidth of a device between nodes, one direction, GB/s",
            QuantityType(LINK_RATE),
            only_if=lambda values: (values.get("num_nodes") or 1) > 1,
        ),
        Question("source", "Where the figures come from; Enter: data sheet", Name(), may_stay_open=True),
    ]


def _as_json(made: NewHardware, path: str, warnings: list[str]) -> dict[str, object]:
    lender = made.lender
    return {
        "hardware_file": path,
        "hardware": made.hardware.model_dump(mode="json", by_alias=True),
        "lent_by": {"device": lender.device.name, "link": lender.link.name},
        "assumed": {field: vars(assumed) for field, assumed in made.assumed.items()},
        "warnings": warnings,
    }


def _print(made: NewHardware, path: str) -> None:
    from ..strategy.files import is_standard_output, shown
    from ..strategy.yaml_file import scalar_text
    from .output import table

    echo(f"Written to {shown(path)}. Assumed, since no figure was given:")
    rows = []
    for field, assumed in made.assumed.items():
        times = "" if assumed.times_bf16 is None else f", {assumed.times_bf16:g} times bf16"
        value = scalar_text(assumed.value) if isinstance(assumed.value, bool) else f"{assumed.value:g}"
        rows.append((field, value, f"{assumed.lent_by or '-'}{times}"))
    table(["field", "value", "as on"], rows, "lrl")
    for field, assumed in made.assumed.items():
        if assumed.otherwise is not None:
            echo(f"No preset lends {field}: give {assumed.otherwise}.")
    if not is_standard_output(path):
        echo(f"Next: commplan init deployment MODEL --hardware {path}")
