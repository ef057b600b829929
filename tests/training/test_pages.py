"""The commands of docs/training.md and docs/paper_run.md, run one after the other as the pages say, on a small scale.

Each gets options that make it small, or put made-up data and models in the place of what cannot be had here.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnc_core import load_fusers
from training.__main__ import make_parser

from .test_train_resume import ROOT
from .train_inputs import write_base

SMALL_SET = ("--size", "128", "--threads", "1")
NO_MODELS = (
    "--inpainter", "telea", "--depth", "mini", "--autoencoder", "mini", "--text-encoder", "mini", "--image-encoder",
    "mini", "--precision", "fp32", "--models", "--min-side", "0",
)  # fmt: skip
SMALL_RUN = (
    "--steps", "2", "--batch", "2", "--held-out", "1", "--grid-steps", "1", "--grid-samples", "1", "--save-every", "2",
    "--mixed-precision", "no", "--device", "cpu", "--threads", "1", "--no-tensorboard",
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository's models and recipes, made-up pictures of COCO, and a tiny base model."""
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "training").mkdir()
    (folder / "training" / "recipes").symlink_to(ROOT / "training" / "recipes")
    (folder / "models").mkdir()
    (folder / "models" / "mini").symlink_to(ROOT / "models" / "mini")
    (folder / "models" / "checkpoints").mkdir()
    write_base(folder / "models" / "checkpoints" / "v1-5-pruned-emaonly.safetensors")
    rng = np.random.default_rng(0)
    for part in ("train2017", "stuffthingmaps/train2017", "annotations"):
        (folder / "coco" / part).mkdir(parents=True)
    for number in range(4):
        pixels = rng.integers(0, 255, (96, 128, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "coco" / "train2017" / f"{number:012d}.jpg")
        labels = np.full((96, 128), 255, np.uint8)
        labels[30:60, 50:80] = 0
        Image.fromarray(labels).save(folder / "coco" / "stuffthingmaps" / "train2017" / f"{number:012d}.png")
    names = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(4)]
    captions = [{"id": number, "image_id": number, "caption": "a ball"} for number in range(4)]
    path = folder / "coco" / "annotations" / "captions_train2017.json"
    path.write_text(json.dumps({"images": names, "annotations": captions}), encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def commands(page: str) -> list[list[str]]:
    """The commands of a page's blocks, in their order; what a launcher starts is run alone."""
    found = []
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("    ") and "-m training" in line:
            for part in re.split("&&|#", line):
                if "-m training" in part:
                    found.append(shlex.split(part.partition("-m training")[2]))
    return found


def run(arguments: list[str], *more: str) -> None:
    parsed = make_parser().parse_args([*arguments, *more])
    parsed.run(parsed)


@pytest.mark.slow
def test_the_trial_of_the_training_page_runs(place: Path) -> None:
    seen = set()
    for command in commands("training.md"):
        name = command[0] if "--plan" not in command else "plan"
        if name == "prepare":
            run(command, *SMALL_SET, "--scenes", "6")
        elif name in ("train", "plan"):
            more = ("--data", "sets/scenes") if "train_mini" not in command[2] else ()
            plan = ("--plan-steps", "0") if name == "plan" else ()
            run(command, *SMALL_RUN, *more, *plan)
        else:
            run(command)
        seen.add(name)
    assert seen == {"prepare", "train", "check", "show", "plan"}
    assert load_fusers(place / "runs" / "mini_local" / "best.safetensors").local_fuser is not None
    assert (place / "sheet.png").exists()


@pytest.mark.slow
def test_the_papers_run_runs_from_coco_to_a_checkpoint(place: Path) -> None:
    wanted = commands("paper_run.md")
    assert len(wanted) == 11
    for command in wanted:
        if command[0] == "prepare":
            if "prepare_pickapic" in command[2]:
                continue  # its parquet files have a test of their own
            run(command, *SMALL_SET, *NO_MODELS)
        elif command[0] == "train":
            if "--fusers" in command:
                command = [*command, "--out", "runs/from_initial"]
            plan = ("--plan-steps", "0") if "--plan" in command else ()
            run(command, *SMALL_RUN, "--data", "sets/coco", *plan)
        elif command[0] == "convert":
            run(["convert", "models/checkpoints/v1-5-pruned-emaonly.safetensors", *command[2:]])
        else:
            run(command)
    assert load_fusers(place / "cnc.safetensors").global_fuser is not None
