"""`init hardware` makes a complete file from the figures of a data sheet; what it adds is marked as assumed."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from commplan.planner.descriptions.loader import load_hardware, preset_names
from commplan.planner.strategy.errors import InputError

from .commandline import answer, refused, run

SMALL = "qwen3-0.6b-cpu-tp2"
GIVEN = {
    "--name": "b9-8",
    "--vendor": "nvidia",
    "--memory-gb": "288",
    "--memory-gb-per-s": "8000",
    "--bf16-tflops": "2500",
    "--link": "switch",
    "--link-gb-per-s": "900",
    "--devices-per-node": "8",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(**others: str | None) -> list[str]:
    """The eight options with some changed or, by None, left out."""
    given = GIVEN | {f"--{name.replace('_', '-')}": value for name, value in others.items()}
    return [part for option, value in given.items() if value is not None for part in (option, value)]


def figures(value: Any, path: str = "") -> dict[str, dict[str, Any]]:
    """Every figure of a file by its field."""
    if not isinstance(value, dict):
        return {}
    if "provenance" in value:
        return {path: value}
    found = {}
    for key, inner in value.items():
        found |= figures(inner, f"{path}.{key}" if path else key)
    return found


def test_four_figures_a_link_and_a_number_of_devices_make_a_file_that_plans_at_once(folder: Path) -> None:
    result = run("init", "hardware", *options())
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Written to b9-8.yaml. Assumed")
    assert "commplan init deployment MODEL --hardware b9-8.yaml" in result.out
    plan = answer("plan", "qwen3-32b-h100-tp2", "--set", "hardware=b9-8.yaml", "--set", "executor=plan_only")
    assert plan["modes"]["prefill"]


def test_what_was_given_is_of_the_data_sheet_and_the_rest_assumed_with_whose_it_is(folder: Path) -> None:
    made = answer("init", "hardware", *options(source="the sheet of May"))
    found = figures(yaml.safe_load(Path("b9-8.yaml").read_text()))
    given = {
        "compute.bf16_tflops": 2500,
        "memory.capacity_gb": 288,
        "memory.bandwidth_gb_per_s": 8000,
        "links.intra_node.bandwidth_gb_per_s": 900,
    }
    assert {field: f["value"] for field, f in found.items() if f["provenance"] == "datasheet"} == given
    assert {f["source"] for f in found.values() if f["provenance"] == "datasheet"} == {"the sheet of May"}
    others = {field for field in found if field not in given}
    assert {found[field]["provenance"] for field in others} == {"assumed"}
    assert all(any(name in found[field]["source"] for name in preset_names("hardware")) for field in others)
    for field in others:
        assert made["assumed"][field]["value"] == found[field]["value"]
        assert made["assumed"][field]["lent_by"] in found[field]["source"]
    assert made["hardware_file"] == "b9-8.yaml"


def test_the_device_and_the_link_lend_from_the_presets_nearest_to_each() -> None:
    lent = answer("init", "hardware", *options(memory_gb="80", memory_gb_per_s="3350", bf16_tflops="989",
                                               link="pcie", link_gb_per_s="64"))["lent_by"]  # fmt: skip
    assert lent == {"device": "h100-8", "link": "rtx-pro-6000-8"}


# ---- over PCIe -------------------------------------------------------------------------------------------------------

PCIE_BOXES = {
    "rtx-4090-8": {"memory_gb": "24", "memory_gb_per_s": "1008", "bf16_tflops": "165", "link_gb_per_s": "32"},
    "rtx-5090-8": {"memory_gb": "32", "memory_gb_per_s": "1792", "bf16_tflops": "209.5", "link_gb_per_s": "64"},
    "l40s-8": {"memory_gb": "48", "memory_gb_per_s": "864", "bf16_tflops": "362", "link_gb_per_s": "31.5"},
}
ADA = {"memory_gb": "48", "memory_gb_per_s": "960", "bf16_tflops": "364", "link_gb_per_s": "32"}


def pcie(**others: str) -> list[str]:
    return options(link="pcie", devices_per_node="2", **others)


@pytest.mark.parametrize("preset", PCIE_BOXES)
def test_a_pcie_box_of_a_device_with_a_preset_has_the_links_of_that_preset(preset: str) -> None:
    made = answer("init", "hardware", *pcie(**PCIE_BOXES[preset]))
    assert made["lent_by"] == {"device": preset, "link": preset}
    theirs, mine = (load_hardware(name).links.intra_node for name in (preset, "b9-8.yaml"))
    assert [mine.efficiency_of(ranks) for ranks in (2, 4, 8)] == [theirs.efficiency_of(ranks) for ranks in (2, 4, 8)]
    assert (mine.latency_us.value, mine.collective_overhead_us.value) == (
        theirs.latency_us.value, theirs.collective_overhead_us.value
    )  # fmt: skip


@pytest.mark.parametrize(
    ("box", "device"),
    [(ADA, "l40s-8"), (PCIE_BOXES["rtx-4090-8"] | {"link_gb_per_s": "16"}, "rtx-4090-8")],
    ids=["a device much like an L40S", "the device of a preset behind another link"],
)
def test_any_other_pcie_box_has_the_shares_of_the_usual_host(box: dict[str, str], device: str) -> None:
    """The nearest figures of PCIe 4 are those of the one host whose tables are the exception (docs/pcie.md)."""
    assert answer("init", "hardware", *pcie(**box))["lent_by"] == {"device": device, "link": "rtx-pro-6000-8"}
    usual, mine = (load_hardware(name).links.intra_node for name in ("rtx-pro-6000-8", "b9-8.yaml"))
    assert [mine.efficiency_of(ranks) for ranks in (2, 4, 8)] == [usual.efficiency_of(ranks) for ranks in (2, 4, 8)]
    assert mine.efficiency.source == "as on rtx-pro-6000-8, whose links stand for PCIe where the device has no preset"


def test_a_preset_of_pcie_may_be_named_to_lend_and_one_of_nvlink_lends_no_links_to_it() -> None:
    assert answer("init", "hardware", *pcie(**ADA), "--like", "l40s-8")["lent_by"]["link"] == "l40s-8"
    made = answer("init", "hardware", *pcie(**ADA), "--like", "h100-8", "--force")
    assert made["lent_by"] == {"device": "h100-8", "link": "rtx-pro-6000-8"}


def test_a_lender_that_is_named_is_not_called_the_nearest() -> None:
    answer("init", "hardware", *options(), "--like", "ascend-a3-16")
    made = load_hardware("b9-8.yaml")
    assert made.compute.gemm_efficiency.source == "as on ascend-a3-16, as --like says"
    answer("init", "hardware", *options(), "--force")
    assert load_hardware("b9-8.yaml").compute.gemm_efficiency.source.endswith(", the nearest preset")


def test_a_link_that_another_lends_than_was_named_is_the_nearest() -> None:
    answer("init", "hardware", *pcie(**PCIE_BOXES["rtx-4090-8"]), "--like", "h100-8")
    made = load_hardware("b9-8.yaml")
    assert made.compute.gemm_efficiency.source == "as on h100-8, as --like says"
    assert made.links.intra_node.efficiency.source == "as on rtx-4090-8, the nearest preset"


def test_a_file_on_standard_output_is_no_path_in_what_is_said(folder: Path) -> None:
    Path("-").write_text("mine")
    result = run("init", "hardware", *options(), "-o", "-")
    assert (result.code, Path("-").read_text()) == (0, "mine")
    assert result.out.startswith("# Made by `commplan init hardware`")
    assert "Written to standard output." in result.err and "Next: " not in result.err


@pytest.mark.parametrize("like", [(), ("--like", "l40s-8"), ("--like", "rtx-pro-6000-8")])
@pytest.mark.parametrize("rate", ["32", "64"])
def test_nobody_but_the_user_says_that_devices_reach_each_other_over_pcie(like: tuple[str, ...], rate: str) -> None:
    given = pcie(**PCIE_BOXES["l40s-8"] | {"link_gb_per_s": rate})
    result = run("init", "hardware", *given, *like)
    said = "No preset lends links.intra_node.peer_access: give --peer-access where devices read each other's memory."
    assert said in result.out.splitlines()
    line = "peer_access: false # assumed; true where devices read each other's memory (`--peer-access` of the command)"
    assert f"    {line}" in Path("b9-8.yaml").read_text().splitlines()
    made = answer("init", "hardware", *given, *like, "--force")
    assert made["assumed"]["links.intra_node.peer_access"] == {
        "value": False, "lent_by": None, "times_bf16": None,
        "otherwise": "--peer-access where devices read each other's memory",
    }  # fmt: skip


@pytest.mark.parametrize(("option", "reaches"), [("--peer-access", True), ("--no-peer-access", False)])
@pytest.mark.parametrize("link", ["pcie", "switch"])
def test_what_the_user_says_of_peer_access_is_taken_and_not_assumed(option: str, reaches: bool, link: str) -> None:
    result = run("init", "hardware", *options(link=link), option)
    assert (result.code, "peer_access" in result.out) == (0, False)
    assert load_hardware("b9-8.yaml").links.intra_node.peer_access is reaches


def test_links_of_nvlink_say_nothing_of_peer_access_and_have_it() -> None:
    made = answer("init", "hardware", *options())
    assert made["lent_by"]["link"] == "b200-8"
    assert "peer_access" not in Path("b9-8.yaml").read_text()
    assert load_hardware("b9-8.yaml").links.intra_node.has_peer_access


def test_a_pair_of_4090_gets_no_kernel_that_reads_its_peers_and_all_reduces_as_its_preset() -> None:
    answer("init", "hardware", *pcie(**PCIE_BOXES["rtx-4090-8"]))
    place = ("qwen3-32b-l40s-tp4", "--set", "model=qwen3-8b", "--set", "parallelism.tp=2", "--set", "executor=sglang")
    sums = []
    for machine in ("b9-8.yaml", "rtx-4090-8"):
        at = ("--mode", "prefill", "--tokens", 4096, "--boundary", "mlp_out", "--op", "all_reduce")
        plan = answer("explain", *place, "--set", f"hardware={machine}", *at)
        found = [plan["chosen"], *plan["alternatives"]]
        assert not any("commplan_triton" in op for option in found for op in option["ops"].values())
        sums.append(next(option["step_us"] for option in found if option["ops"] == {"mlp_out": "all_reduce"}))
    assert sums[0] == pytest.approx(sums[1], rel=0.01)


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_a_vendors_devices_are_nearer_than_anothers_with_the_same_figures() -> None:
    made = answer("init", "hardware", *options(vendor="ascend", link="full_mesh"))
    assert made["lent_by"]["device"].startswith("ascend") and made["hardware"]["backend"] == "hccl"
    assert made["hardware"]["compute"]["fp8_tflops"] is None


def test_one_preset_may_be_named_to_lend_all() -> None:
    made = answer("init", "hardware", *options(), "--like", "h20-8")
    assert made["lent_by"] == {"device": "h20-8", "link": "h20-8"}
    assert refused("init", "hardware", *options(), "--like", "h21-8", "--force")["field"] == "--like"


def test_other_rates_are_in_proportion_unless_they_are_given_or_lacking() -> None:
    compute = answer("init", "hardware", *options(), "--like", "h20-8")["hardware"]["compute"]
    assert (compute["fp8_tflops"]["value"], compute["fp8_tflops"]["provenance"]) == (5000, "assumed")
    given = options(fp8_tflops="4.5PFLOPS", int8_tops="none")
    compute = answer("init", "hardware", *given, "--force")["hardware"]["compute"]
    assert (compute["fp8_tflops"]["value"], compute["fp8_tflops"]["provenance"]) == (4500, "datasheet")
    assert compute["int8_tops"] is None


def test_nodes_are_joined_by_a_link_of_their_own() -> None:
    links = answer("init", "hardware", *options(num_nodes="2", node_link_gb_per_s="400Gb/s"))["hardware"]["links"]
    assert (links["inter_node"]["bandwidth_gb_per_s"]["value"], links["inter_node"]["efficiency"]["provenance"]) == (
        50,
        "assumed",
    )
    assert load_hardware("b9-8.yaml").num_devices == 16
    assert refused("init", "hardware", *options(num_nodes="2"), "--force")["field"] == "--node-link-gb-per-s"


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("memory_gb", "80GiB", 85.8993),
        ("memory_gb", "0.288 TB", 288),
        ("memory_gb_per_s", "8TB/s", 8000),
        ("memory_gb_per_s", "8,000 GB/s", 8000),
        ("bf16_tflops", "2,500.5", 2500.5),
        ("bf16_tflops", "2.5PFLOPS", 2500),
        ("bf16_tflops", "2500 tflops", 2500),
        ("link_gb_per_s", "400Gb/s", 50),
        ("link_gb_per_s", "400Gbps", 50),
        ("link_gb_per_s", "900", 900),
    ],
)
def test_a_figure_may_have_a_unit_of_its_own(option: str, text: str, value: float) -> None:
    found = figures(answer("init", "hardware", *options(**{option: text}))["hardware"])
    given = {f["value"]: f["source"] for f in found.values() if f["provenance"] == "datasheet"}
    assert value in given
    assert text[-1].isdigit() or given[value].endswith(text), "what was typed is the source of what was converted"


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("memory_gb", "80000000", "no figure of a device"),
        ("memory_gb", "0", "no figure of a device"),
        ("memory_gb", "-80", "a number is expected, in GB"),
        ("memory_gb", "nan", "a number is expected"),
        ("memory_gb", "80 GB/s", "which unit is meant? accepted: GB, GiB, TB, TiB"),
        ("memory_gb", "640Gb", "which unit is meant? accepted: GB"),
        ("memory_gb", "8,0", "a number is expected"),
        ("memory_gb_per_s", "3,35TB/s", "a number is expected, in GB/s"),
        ("bf16_tflops", "9,9,0", "a number is expected"),
        ("bf16_tflops", ",,990", "a number is expected"),
        ("link_gb_per_s", "900 gb/s", "which unit is meant? accepted: GB/s or Gb/s"),
        ("link_gb_per_s", "fast", "a number is expected, in GB/s"),
        ("bf16_tflops", "none", "a number is expected"),
    ],
)
def test_a_figure_in_no_unit_or_of_no_device_is_refused(option: str, text: str, said: str, folder: Path) -> None:
    error = refused("init", "hardware", *options(**{option: text}))
    assert (error["field"], error["value"]) == (f"--{option.replace('_', '-')}", text)
    assert said in error["message"]
    assert not list(folder.iterdir())


def test_every_missing_option_is_named_at_once_where_nobody_can_be_asked(folder: Path) -> None:
    error = refused("init", "hardware", "--name", "b9-8", "--link", "switch")
    assert [each["field"] for each in (error, *error["others"])] == [
        "--vendor", "--memory-gb", "--memory-gb-per-s", "--bf16-tflops", "--devices-per-node", "--link-gb-per-s"
    ]  # fmt: skip
    assert not list(folder.iterdir())


def test_a_file_that_is_there_is_replaced_only_by_force(folder: Path) -> None:
    Path("b9-8.yaml").write_text("mine")
    error = refused("init", "hardware", *options())
    assert (error["kind"], error["file"], "--force" in error["message"]) == ("exists", "b9-8.yaml", True)
    assert Path("b9-8.yaml").read_text() == "mine"
    assert refused("init", "hardware", *options(), "-o", "b9-8.yaml")["kind"] == "exists"
    assert answer("init", "hardware", *options(), "--force")
    assert load_hardware("b9-8.yaml").name == "b9-8"


@pytest.mark.parametrize("name", ["h100-8", "a/b", "two words", "..", "-x"])
def test_a_name_that_no_file_should_have_is_refused(name: str, folder: Path) -> None:
    assert refused("init", "hardware", *options(name=None), f"--name={name}")["field"] == "--name"
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"memory_gb": "80", "memory_gb_per_s": "3350", "bf16_tflops": "989"}, "add both directions"),
        (
            {"memory_gb": "24", "memory_gb_per_s": "1008", "bf16_tflops": "165", "link": "pcie", "link_gb_per_s": "64"},
            "right one generation of PCIe later",
        ),
        ({"memory_gb": "80", "memory_gb_per_s": "3350", "bf16_tflops": "1979"}, "with sparsity"),
        ({"memory_gb_per_s": "800"}, "are the two bandwidths exchanged"),
        ({"memory_gb_per_s": "7"}, "is it in GB/s, not in TB/s?"),
        ({"bf16_tflops": "2.1"}, "is it in TFLOP/s, not in PFLOP/s?"),
    ],
)
def test_a_figure_that_looks_like_another_kind_is_doubted_and_written(changed: dict[str, str], said: str) -> None:
    result = run("init", "hardware", *options(**changed))
    assert (result.code, said in result.err) == (0, True), result
    assert any(said in warning for warning in answer("init", "hardware", *options(**changed), "--force")["warnings"])


def test_a_plausible_machine_is_not_doubted() -> None:
    for name in preset_names("hardware"):
        preset = load_hardware(name)
        if preset.num_nodes > 1 or name == "cpu-gloo":
            continue
        link = preset.links.intra_node
        given = options(
            name=f"my-{name}", vendor=preset.vendor, memory_gb=f"{preset.memory.capacity_gb.value:g}",
            memory_gb_per_s=f"{preset.memory.bandwidth_gb_per_s.value:g}", link=link.topology,
            bf16_tflops=f"{preset.compute.bf16_tflops.value:g}", link_gb_per_s=f"{link.bandwidth_gb_per_s.value:g}",
            devices_per_node=str(preset.devices_per_node))  # fmt: skip
        assert answer("init", "hardware", *given)["warnings"] == [], name


def test_the_same_machine_comes_out_as_its_preset_says() -> None:
    """What a preset lends to a machine of its own figures is what the preset holds."""
    preset = load_hardware("h100-8")
    answer("init", "hardware", *options(memory_gb="85.9", memory_gb_per_s="3350", bf16_tflops="989",
                                        link_gb_per_s="450"), "--like", "h100-8")  # fmt: skip
    made = load_hardware("b9-8.yaml")
    assert made.links.intra_node.figures == preset.links.intra_node.figures
    assert made.links.intra_node.multicast is preset.links.intra_node.multicast
    for part in ("compute", "memory"):
        for name, figure in getattr(preset, part):
            assert getattr(made, part).__dict__[name].value == figure.value if figure is not None else True


# ---- on a terminal ---------------------------------------------------------------------------------------------------


def asked(answers: str, *arguments: str, cwd: Path) -> tuple[int, str]:
    """Exit code and everything that a terminal shows, for what is typed."""
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "commplan.planner.cli", *arguments]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=cwd)
    os.close(terminal)
    os.write(main, answers.encode())
    shown = b""
    while select.select([main], [], [], 30)[0]:
        try:
            piece = os.read(main, 4096)
        except OSError:  # the terminal is closed
            break
        if not piece:
            break
        shown += piece
    else:
        process.kill()
    code = process.wait(timeout=60)
    os.close(main)
    return code, shown.decode().replace("\r\n", "\n")


def lines(*answers: str) -> str:
    return "".join(f"{answer}\n" for answer in answers)


def test_on_a_terminal_it_asks_for_what_no_option_gives(folder: Path) -> None:
    answers = lines("nvidia", "288 GB", "8 TB/s", "2500", "", "none", "8", "switch", "900", "", "")
    code, shown = asked(answers, "init", "hardware", "--name", "b9-8", cwd=folder)
    assert code == 0, shown
    assert "Bandwidth of a device's links, one direction, all together, GB/s" in shown
    assert "Name of the machine" not in shown
    made = load_hardware("b9-8.yaml")
    assert (made.memory.bandwidth_gb_per_s.value, made.compute.int8_tops) == (8000, None)


def test_over_pcie_it_asks_whether_devices_reach_each_other(folder: Path) -> None:
    code, shown = asked(lines("32", "perhaps", "yes", "", ""), "init", "hardware",
                        *options(link="pcie", link_gb_per_s=None, fp8_tflops="none", int8_tops="none"),
                        cwd=folder)  # fmt: skip
    assert code == 0, shown
    assert "Do the devices of a node read each other's memory (yes, no); Enter: no" in shown
    assert shown.count("Error: ") == 1
    assert load_hardware("b9-8.yaml").links.intra_node.peer_access is True


def test_an_answer_that_is_none_is_asked_for_again(folder: Path) -> None:
    answers = lines("h100-8", "b9-8", "intel", "nvidia", "lots", "288", "8000", "2500", "", "")
    answers += lines("8", "switch", "900", "2", "50", "a sheet")
    code, shown = asked(answers, "init", "hardware", cwd=folder)
    assert code == 0, shown
    assert shown.count("Error: ") == 3
    made = load_hardware("b9-8.yaml")
    assert (made.num_devices, made.memory.capacity_gb.source) == (16, "a sheet")


def test_whoever_ends_the_questions_writes_nothing(folder: Path) -> None:
    code, _ = asked("b9-8\n\x04", "init", "hardware", cwd=folder)
    assert code == 130
    assert not list(folder.iterdir())


def test_a_hardware_that_is_no_file_is_told(folder: Path) -> None:
    with pytest.raises(InputError):
        load_hardware("b9-8.yaml")
