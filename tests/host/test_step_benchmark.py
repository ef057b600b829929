"""The benchmark of a step, on networks as small as they get."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Host

NUMBER = r"(\d+\.\d+)"
BESIDE_TWO = re.compile(
    rf"^  (\d layers(?: with words)?) .*, {NUMBER} of two layers \(round by round {NUMBER} to {NUMBER}\); "
    rf"target: at most {NUMBER}$",
    re.MULTILINE,
)
TARGETS = {"3 layers": "1.03", "5 layers": "1.06", "5 layers with words": "1.12"}


def told(comfy: Path, root: Path, *options: str) -> str:
    command = [sys.executable, "-m", "benchmarks", "step", "--tiny", "--size", "64", "--rounds", "2", *options]
    environment = {**os.environ, "CNC_COMFY": str(comfy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["all", "layers"])
def test_more_layers_are_timed_beside_two(comfy: Path, root: Path, rows: str) -> None:
    text = told(comfy, root, "--only", "time", "--rows", rows)
    found = {name: (float(share), target) for name, share, _, _, target in BESIDE_TWO.findall(text)}
    assert {name: target for name, (_, target) in found.items()} == TARGETS
    times = {name: float(seconds) for name, seconds in re.findall(rf"^  (.{{20}}) *{NUMBER} s ", text, re.MULTILINE)}
    times = {name.strip(): seconds for name, seconds in times.items()}
    others = {"ControlNet", "2 ControlNets", "local fuser alone"} if rows == "all" else set()
    assert set(times) == {"plain", "Compose and Conquer", *TARGETS, *others}
    for name, (share, _) in found.items():  # times are printed to the millisecond
        assert share == pytest.approx(times[name] / times["Compose and Conquer"], rel=0.1)
    assert ("(ours - plain) / (ControlNet - plain): " in text) == (rows == "all")


@pytest.mark.slow
def test_memory_of_more_layers_is_beside_that_of_two(comfy: Path, root: Path) -> None:
    text = told(comfy, root, "--only", "memory", "--rows", "layers")
    found = re.findall(rf"^  (.+?) +{NUMBER} GB, {NUMBER} of two layers; target: at most 1\.05$", text, re.MULTILINE)
    assert [name for name, *_ in found] == list(TARGETS)
    assert all(float(own) > 0 and 0.5 < float(share) < 1.05 for _, own, share in found), text


def test_each_layer_of_a_row_shows_and_has_its_look_and_words(host: Host, tmp_path: Path) -> None:
    from benchmarks import contenders
    from benchmarks.rows import LAYER_ROWS

    size = contenders.NETWORKS["tiny"]
    model, given = contenders.plain_model(size), contenders.pictures(64)
    path = tmp_path / "fusers.safetensors"
    contenders.write_fusers(path, host.pack, size)
    fusers = host.pack.part("nodes.host.fusers").load(path)
    layers = {"3 layers": 3, "5 layers": 5, "5 layers with words": 5}
    for name, row in LAYER_ROWS.items():
        made = contenders.with_layers(model, host.pack, fusers, given, row)
        guidance = made.model.model_options["transformer_options"]["cnc_guidance"]
        looks = [region for region in guidance.regions if region.weight_mode == "scale" and region.tokens.shape[1]]
        words = [region for region in guidance.regions if region.weight_mode == "gate"]
        assert [region.tokens.shape[1] for region in looks] == [4] * layers[name], name
        assert [region.tokens.shape[1] for region in words] == [12] * (layers[name] if "words" in name else 0), name
        shown = [region.mask for region in looks[:-1]]
        assert looks[-1].mask is None and all(mask.any() for mask in shown), name
        control = made.positive[0][1]["control"]
        assert control is made.negative[0][1]["control"]
        assert control.fg_depth is not None and control.bg_depth is not None and control.strength_map is not None
        assert shown[0].equal((control.fg_depth[:, :1] > 0).float())
        assert all(mask.sum() < shown[0].sum() for mask in shown[1:]), "discs of one size, and each hides a part"
