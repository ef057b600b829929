"""What a user gets wrong is told in a line, whichever command or format it concerns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnc_core import CheckpointError, Fusers, GlobalFuser, LocalFuser, load_fusers, perception, save_fusers
from cnc_core.perception import load_depth
from cnc_core.perception.estimator import MapEstimator
from training.config import ConfigError
from training.diffusion import widest_float
from training.evaluate.folder import slug
from training.evaluate.generate import GenerateConfig, _Samples, generate
from training.evaluate.pictures import Pictures, depth_error
from training.prepared import PreparedError, PreparedSet
from training.train import Trainer
from training.weights import convert, merge_fusers

from .train_inputs import TINY, tiny_config, write_base, write_set


@pytest.mark.parametrize("held_out", [23, 64])
def test_a_set_that_is_all_held_out_is_refused_in_words(tmp_path: Path, held_out: int) -> None:
    with pytest.raises(ConfigError, match=rf"{held_out} held-out samples leave none of 23 samples.*lower held_out"):
        Trainer(tiny_config(tmp_path, held_out=held_out))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("training", "train", "--steps", "0", "--data", "x", "--base", "x", "--out", "x"),
        ("training", "evaluate", "order", "--steps", "0"),
        ("training.evaluate", "order", "--steps", "0"),
        ("training.evaluate", "tables", "--images", "none"),
        ("training.evaluate", "generate", "--data", "x", "--base", "x", "--fusers", "x", "--out", "out"),
        ("training.mini", "nothing"),
    ],
    ids=" ".join,
)
def test_no_entry_point_answers_with_a_traceback(root: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    run = [sys.executable, "-m", *arguments]
    environment = {"PYTHONPATH": str(root), "PATH": "", "HOME": str(tmp_path)}
    ended = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode in (1, 2) and "Traceback" not in ended.stderr and len(ended.stderr) > 20


def test_names_that_differ_give_files_that_differ() -> None:
    names = ["a/b", "a b", "a_b", "a  b", "\u732b", "\u72ac", "caf\u00e9", "caf\u00e8", "a", "a.b", "a/b/c"]
    files = [slug(name) for name in names]
    assert len(set(files)) == len(names)
    assert all(file.isascii() and "/" not in file and " " not in file for file in files)
    assert slug("000000000009.jpg") == "000000000009.jpg"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    save_fusers(folder / "both.safetensors", Fusers(LocalFuser(TINY), GlobalFuser(TINY), TINY, {}), {"num_heads": "2"})
    save_fusers(folder / "local.safetensors", Fusers(LocalFuser(TINY), None, TINY, {}), {"num_heads": "2"})
    write_base(folder / "base.safetensors")
    write_set(folder / "set", 6)
    return folder


def generated(model: Path, out: Path) -> GenerateConfig:
    return GenerateConfig(
        data=model / "set", base=model / "base.safetensors", fusers=(model / "both.safetensors",), out=out, steps=1,
        cfg=1.0, limit=1, device="cpu", threads=1,
    )  # fmt: skip


def test_pictures_of_another_set_are_not_taken_for_the_new_ones(model: Path, tmp_path: Path) -> None:
    config = replace(generated(model, tmp_path / "out"), data=tmp_path / "set")
    write_set(tmp_path / "set", 6)
    generate(config)
    for path in (tmp_path / "set").iterdir():
        path.unlink()
    write_set(tmp_path / "set", 7)
    with pytest.raises(ConfigError, match=r"begun with other settings .*data_content"):
        generate(config)


def test_version_v3_is_the_mask_times_the_depth_of_the_whole_picture(model: Path, tmp_path: Path) -> None:
    """As the nodes and `evaluate depth` have it."""
    samples = _Samples(replace(generated(model, tmp_path / "out"), depth_version="v3"))
    arrays = PreparedSet(model / "set").batch([2, 4])
    assert torch.equal(samples.asked([2, 4]).fg_depth, arrays["source_depth"] * arrays["mask"])


def test_an_estimator_is_found_in_folders_and_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("made", "true"):
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(len(name)).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    made, true = (Pictures(tmp_path / name) for name in ("made", "true"))
    path = tmp_path / "models" / "network.pt"
    path.parent.mkdir()
    path.touch()
    asked: list[tuple[str, list[Path]]] = []

    def loaded(name: str, folders: Sequence[Path] = ()) -> MapEstimator:
        asked.append((name, list(folders)))
        return load_depth("mini")

    monkeypatch.setattr(perception, "load_depth", loaded)
    assert depth_error(made, true, "mini")
    assert depth_error(made, true, str(path))
    assert depth_error(made, true, path.name, (path.parent,))
    assert asked == [("mini", []), (path.name, [path.parent]), (path.name, [path.parent])]


@pytest.mark.parametrize("name", ["new/folder/joint.safetensors", "new/initial.bin"])
def test_convert_and_merge_make_folders_and_write_what_the_name_says(model: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    if target.suffix == ".safetensors":
        convert(model / "base.safetensors", target, say=lambda _: None)
        assert load_fusers(target).local_fuser is not None
        merge_fusers(model / "local.safetensors", model / "both.safetensors", target, say=lambda _: None)
        assert load_fusers(target).global_fuser is not None
    else:
        for write in (
            lambda: convert(model / "base.safetensors", target, say=lambda _: None),
            lambda: merge_fusers(model / "local.safetensors", model / "both.safetensors", target, say=lambda _: None),
        ):
            with pytest.raises(CheckpointError, match=r"must end in \.safetensors or \.ckpt"):
                write()
        assert not target.parent.exists()


def test_a_ckpt_is_one(tmp_path: Path) -> None:
    config = replace(TINY, num_heads=8, inject_channels=(8, 8, 8, 8))
    parts = (Fusers(LocalFuser(config), None, config, {}), Fusers(None, GlobalFuser(config), config, {}))
    for number, part in enumerate(parts):
        save_fusers(tmp_path / f"{number}.safetensors", part, {})
    merge_fusers(tmp_path / "0.safetensors", tmp_path / "1.safetensors", tmp_path / "both.ckpt", say=lambda _: None)
    assert torch.load(tmp_path / "both.ckpt", weights_only=True)
    assert load_fusers(tmp_path / "both.ckpt").global_fuser is not None


def test_sums_take_no_more_than_a_device_has() -> None:
    assert widest_float(torch.device("mps")) == torch.float32
    assert widest_float(torch.device("cpu")) == torch.float64


def test_a_set_without_the_depth_of_the_whole_picture_has_no_v3(model: Path, tmp_path: Path) -> None:
    config = replace(generated(model, tmp_path / "out"), depth_version="v3")
    read = PreparedSet(config.data).manifest
    assert "source_depth" in read.arrays
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(read.arrays, "source_depth")
        patch.setattr("training.prepared.reader.read_manifest", lambda _: read)
        patch.setattr("training.prepared.reader.check_header", lambda *_: None)
        with pytest.raises(PreparedError, match="has no source_depth"):
            _Samples(config)
