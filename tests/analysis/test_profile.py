from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from attnlab.analysis.measure import paired_rounds
from attnlab.analysis.profile import Setup, add_times, count, ratios, rounds_within
from attnlab.analysis.profile_subjects import (
    Subject,
    Variant,
    config_subject,
    library_subject,
)
from attnlab.attention.macs import count_macs
from attnlab.cli.commands import run
from attnlab.errors import AttnlabError
from attnlab.models import BuiltNetwork, build_detector

FLOAT = 4


def small(device: str = "cpu") -> BuiltNetwork:
    """3 -> 8 -> 4 channels at full size, then four logits."""
    with torch.device(device):
        return BuiltNetwork(
            nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(8, 4, 3, padding=1, stride=2),
                nn.Flatten(),
                nn.Linear(4 * 8 * 8, 5),
            )
        )


def small_subject(*variants: str) -> Subject:
    return Subject("small", small, list(map(Variant.parse, variants)), at="0")


def test_saved_bytes_of_attention_by_hand() -> None:
    built = small()
    subject = Subject("small", lambda device: built, [Variant.parse("se:reduction=4")], at="0")
    none, se = count(subject, Setup(size=16, batch=2)).rows
    # The image, what ReLU gives and the flattened map; nobody keeps what the first convolution gives.
    assert none.saved_bytes == FLOAT * (3 * 256 + 8 * 256 + 4 * 64)
    # The product keeps that, and the gate; the two layers keep the means and what ReLU gives.
    assert se.saved_bytes - none.saved_bytes == FLOAT * (8 * 256 + 8 + 2 + 8)


def test_counts_by_formula() -> None:
    none, se = count(small_subject("se:reduction=4"), Setup(size=16)).rows
    macs = 256 * 3 * 8 * 9 + 64 * 8 * 4 * 9 + 256 * 5
    parameters = 3 * 8 * 9 + 8 + 8 * 4 * 9 + 4 + 256 * 5 + 5
    assert (none.attention, none.macs, none.parameters) == ("none", macs, parameters)
    assert (se.attention, se.macs - macs, se.parameters - parameters) == (
        "se:reduction=4",
        8 * 2 + 2 * 8,
        8 * 2 + 2 + 2 * 8 + 8,
    )


# Of the ELA authors' runs (arXiv 2403.01123): MobileNetV2, 1000 classes, millions at 224 x 224.
PUBLISHED_MACS = {
    "none": 300.8,
    "se:reduction=32": 301.1,
    "cbam:reduction=32": 302.3,
    "ca:reduction=32,min_channels=8": 306.7,
    "ela_l": 311.2,
}


def test_macs_of_mobilenet_v2_are_the_published_ones() -> None:
    variants = list(map(Variant.parse, PUBLISHED_MACS))
    profile = count(library_subject("torchvision/mobilenet_v2", variants, "auto", "replace", None), Setup())
    measured = {row.attention: round(row.macs / 1e6, 1) for row in profile.rows}
    assert measured == PUBLISHED_MACS


@pytest.mark.parametrize(("seconds", "rounds"), [(100.0, 10), (16.0, 3), (0.1, 2)])
def test_as_many_rounds_as_there_is_time_for(seconds: float, rounds: int) -> None:
    """By a clock that moves on by a second whenever it is looked at: five times in a round of two works."""
    said: list[str] = []
    now = iter(range(1000))
    plan = rounds_within(Setup(rounds=10, seconds=seconds), 1.0, said.append, "it")
    works: dict[str, Callable[[], object]] = {"a": lambda: None, "b": lambda: None}
    times = paired_rounds(works, rounds=10, warmup=1, clock=lambda: float(next(now)), plan=plan)
    assert [len(taken) for taken in times.values()] == [rounds] * 2
    assert said == [f"timing it: {rounds} rounds of 5.0 s, {5 * rounds} s in all"]


def test_a_person_who_waits_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, on stderr: what is done, and how long it will take."""
    profile_command("timm/test_resnet --size 32 --seconds 0.01 --attention eca")
    said = capsys.readouterr().err
    assert "counting timm/test_resnet with eca, 2 of 2" in said
    assert re.search(
        r"timing timm/test_resnet, forward and backward: 2 rounds of [\d.]+ s, \d+ s in all", said
    )


def test_a_mode_is_known_however_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """As `attention sites` knows it."""
    profile_command("timm/test_resnet --size 32 --no-time --attention eca --mode ReZero")
    assert "mode rezero" in capsys.readouterr().out


def test_ratio_is_the_median_of_rounds_with_the_extremes_behind_it() -> None:
    # The ratio of the medians would be 1.
    assert ratios([1.0, 2.0, 9.0], [2.0, 1.0, 3.0]) == (2.0, 0.5, 3.0)


def test_times_are_per_image_and_leave_the_weights_alone() -> None:
    built = small()
    network = built.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    subject = Subject("small", lambda device: built, [Variant.parse("se")], at="0")
    setup = Setup(size=16, batch=2, rounds=3, threads=1)
    profile = add_times(subject, setup, count(subject, setup))
    assert [len(times) for row in profile.rows for times in (row.forward, row.step)] == [3] * 4
    assert all(0 < seconds < 1 for row in profile.rows for seconds in (*row.forward, *row.step))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_outputs_in_mappings_and_tuples_are_trained() -> None:
    ends: list[float] = []

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.one, self.two = (nn.Conv2d(*sides, 3) for sides in ((3, 4), (4, 2), (4, 2)))
            for head in (self.one, self.two):
                head.weight.register_hook(lambda gradient: ends.append(gradient.abs().sum().item()))

        def forward(self, x: Tensor) -> dict[str, object]:
            x = self.trunk(x)
            return {"out": self.one(x), "aux": (self.two(x), None)}

    subject = Subject("heads", lambda device: BuiltNetwork(Heads()), [])
    setup = Setup(size=8, batch=1, rounds=1)
    add_times(subject, setup, count(subject, setup))
    assert len(ends) == 2 * 2
    assert min(ends) > 0


def test_options_of_a_network_that_it_has_not_are_named(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("task: detection\nmodel: {network: yolox_nano, network_options: {siz: 64}}")
    with pytest.raises(AttnlabError, match="Did you mean 'size'"):
        count(config_subject(str(path)), Setup())


def test_a_detector_is_counted_and_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step is the sum of its losses on random boxes, at the size that it brings images to."""
    path, figures = tmp_path / "some.yaml", tmp_path / "cost.csv"
    options = {"size": 64, "train_sizes": [32, 96]}
    model = {
        "network": "yolox_nano",
        "network_options": options,
        "attention": {"name": "eca", "at": "neck*c3"},
    }
    path.write_text(yaml.safe_dump({"task": "detection", "model": model}))
    profile_command(f"--config {path} --rounds 2 --batch 2 --csv {figures}")
    none, eca = csv.DictReader(figures.read_text().splitlines())
    network = build_detector("yolox_nano", 80, {"size": 64}).network
    assert int(none["macs"]) == count_macs(network, 1, 3, 64, 64)
    assert (none["size_px"], none["rounds"]) == ("64", "2")
    # Some thousandths depend on how many anchors learn an object.
    assert float(eca["saved_ratio"]) == pytest.approx(1, abs=0.01)
    assert float(none["saved_bytes_per_image"]) > 4 * 3 * 64 * 64
    assert all(
        float(row[f"forward{way}_ms_per_image"]) > 0 for row in (none, eca) for way in ("", "_backward")
    )
    shown = capsys.readouterr().out
    assert "some.yaml at 64 x 64 px: neck.inputs.c3" in shown.replace("\n", "")
    assert "with random boxes" in shown


def profile_command(words: str) -> None:
    run(["profile", *words.split()])


def test_csv_and_markdown_hold_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, figures = tmp_path / "cost.md", tmp_path / "cost.csv"
    long = "ca:reduction=16,min_channels=16,norm=gn"
    networks = "timm/test_resnet torchvision/squeezenet1_1"
    words = f"{networks} --attention se:reduction=8 eca {long} --size 64 --batch 2"
    profile_command(f"{words} --at *2 --rounds 3 --channels-last --markdown {table} --csv {figures}")
    rows = list(csv.DictReader(figures.read_text().splitlines()))
    assert [(row["network"], row["attention"]) for row in rows] == [
        (network, attention)
        for network in ("timm/test_resnet", "torchvision/squeezenet1_1")
        for attention in ("none", "se:reduction=8", "eca", long)
    ]
    for base, row in zip([rows[0]] * 4 + [rows[4]] * 4, rows, strict=True):
        assert int(row["parameters"]) - int(base["parameters"]) == int(row["parameters_added"])
        assert int(row["macs"]) - int(base["macs"]) == int(row["macs_added"])
        smallest, middle, largest = (
            float(row[f"forward_backward_ratio{end}"]) for end in ("_smallest", "", "_largest")
        )
        assert 0 < smallest <= middle <= largest
        assert float(row["forward_ms_per_image"]) > 0
        assert (row["batch"], row["size_px"], row["rounds"], row["device"]) == ("2", "64", "3", "cpu")
        assert row["memory_format"] == "channels_last"
        assert row["command"].startswith("python main.py profile timm/test_resnet ")
    assert [row["forward_ratio"] for row in rows if row["attention"] == "none"] == ["1.0", "1.0"]

    text = table.read_text()
    assert text.count("| none | ") == 2
    assert "--at '*2' --rounds 3" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {12}
    assert (
        f"| {int(rows[1]['parameters']) / 1e6:.3f} | {int(rows[1]['parameters_added']) / 1e3:.1f} |"
        in lines[3]
    )
    shown = capsys.readouterr().out
    assert "se:reduction=8" in shown
    # A long name wraps, and the figures of its line are all there.
    line = next(line for line in lines if line.startswith(f"| {long} |"))
    assert all(cell in shown for cell in line.removeprefix(f"| {long} |").strip(" |").split(" | "))
    assert max(map(len, shown.splitlines())) <= 160
    assert "batch 2, 64 x 64 px, float32" in shown
    assert "channels_last; 3 rounds." in shown


def test_counts_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "cost.csv"
    profile_command(f"timm/test_resnet --size 64 --no-time --markdown - --csv {figures}")
    rows = list(csv.DictReader(figures.read_text().splitlines()))
    names = "none se eca cbam ca sa ela_t ela_b ela_s ela_l"
    assert [row["attention"] for row in rows] == names.split()
    assert {row["forward_ms_per_image"] for row in rows} == {""}
    assert all(float(row["saved_bytes_per_image"]) > 0 for row in rows)
    shown = capsys.readouterr().out
    assert "forward (ms" not in shown
    cells = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    more_macs = {row[0]: row[4] for row in cells if len(row) == 7}
    # What is little is not shown as nothing, and nothing is.
    assert more_macs["sa"] == "0"
    assert 0 < float(more_macs["eca"]) < 0.1
    assert "Counted, not timed; batch 16, 64 x 64 px" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "needs a network"),
        ("--attention se torchvision/resnet18", "Put networks before --attention"),
        ("timm/test_resnet --attention see", "Did you mean 'se'"),
        ("timm/test_resnet --attention se:reduction", "takes NAME:KEY=VALUE"),
        ("timm/test_resnet --attention se:", "takes NAME:KEY=VALUE"),
        ("timm/test_resnet --attention se:reductio=4", "Did you mean 'reduction'"),
        ("timm/test_resnet --attention se --at nowhere", "Unknown placement or module"),
        ("timm/test_resnet --mode rezro", "Did you mean 'rezero'"),
        ("timm/test_resnet --size 0", "--size must be at least 1, got 0"),
        ("timm/test_resnet --batch -1", "--batch must be at least 1, got -1"),
        ("timm/test_resnet --rounds 0", "--rounds must be at least 1"),
        ("timm/test_resnet --threads 0", "--threads must be at least 1"),
        ("timm/test_resnet --classes 0", "--classes must be at least 1"),
        ("timm/test_resnet --no-time --csv /nowhere/x.csv", "Cannot write /nowhere/x.csv"),
        ("--config nowhere.yaml", "Cannot read the recipe 'nowhere.yaml'"),
        (
            "torchvision/resnet18 --attention se --size 32 --batch 1",
            "cannot take a training step with a batch of 1",
        ),
    ],
)
def test_words_that_cannot_work_are_errors_before_any_timing(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr("attnlab.analysis.profile.paired_rounds", fail)
    with pytest.raises(AttnlabError, match=message):
        profile_command(words)


def test_one_bad_network_stops_before_the_good_ones_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnlab.analysis.profile.paired_rounds", None)
    with pytest.raises(AttnlabError, match="Did you mean 'test_resnet'"):
        profile_command("timm/test_resnet timm/test_resne --size 64")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_an_error_unless_nothing_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AttnlabError, match="finds no CUDA device"):
        profile_command("timm/test_resnet --device cuda")
    profile_command("timm/test_resnet --device cuda --no-time --size 64 --attention eca")
    assert "Counted, not timed" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_times_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    profile_command("timm/test_resnet --device cuda --size 64 --batch 4 --rounds 2 --attention eca")
    assert torch.cuda.get_device_name() in capsys.readouterr().out


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from attnlab.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    pages = [
        subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        ).stdout
        for words in (["--help"], ["profile", "--help"])
    ]
    assert "profile NETWORK" in pages[0]
    flags = ("--config", "--attention", "--at", "--mode", "--classes", "--size", "--batch", "--rounds")
    for flag in (*flags, "--no-time", "--device", "--channels-last", "--threads", "--markdown", "--csv"):
        assert flag in pages[1]
