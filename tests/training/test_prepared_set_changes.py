"""What `check` and `prepare` make of a set whose manifest, shards or permissions were changed."""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from training.prepare import PrepareConfig, prepare
from training.prepare.command import _check
from training.prepared import PreparedError, PreparedSet
from training.train import train_stage

from .test_prepared_set import write_set
from .test_prepared_set_damage import MANIFEST, enter, write_manifest_text
from .train_inputs import tiny_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_set(tmp_path / "set")
    return tmp_path / "set"


def check(folder: Path) -> None:
    _check(argparse.Namespace(set=folder, repair=False))


def test_a_shard_that_its_manifest_has_lost_is_found(folder: Path) -> None:
    """The last one, with the number of items lowered so that all else fits."""
    check(folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    shards, last = manifest["shards"][:-1], manifest["shards"][-1]
    content = (int(manifest["content"], 16) - int(last["content"], 16)) % (1 << 256)
    less = {**manifest, "shards": shards, "items": 6, "samples": 6, "content": f"{content:064x}"}
    write_manifest_text(folder, less, checksum=True)
    with pytest.raises(PreparedError, match=r"3 files of shards that its manifest does not name.*000002\.json"):
        check(folder)
    with pytest.raises(PreparedError, match="is not in the manifest"):
        PreparedSet(folder).verify()


def test_items_that_are_neither_samples_nor_left_out_are_found(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    write_manifest_text(folder, {**manifest, "items": 9}, checksum=True)
    with pytest.raises(PreparedError, match="shard 000002 says 1 items, not 3"):
        check(folder)


@pytest.mark.parametrize("checksum", [True, False])
def test_another_content_is_found(folder: Path, checksum: bool) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    first, second, third = manifest["shards"]
    first, second = ({**a, "content": b["content"]} for a, b in ((first, second), (second, first)))
    write_manifest_text(folder, {**manifest, "shards": [first, second, third]}, checksum=checksum)
    with pytest.raises(PreparedError, match="holds other samples than the manifest's content says"):
        check(folder)


@pytest.mark.parametrize("what", ["arrays", "captions"])
def test_changed_values_with_a_checksum_of_their_own_are_found(folder: Path, what: str) -> None:
    if what == "arrays":
        path = folder / "000001.safetensors"
        arrays = load_file(path)
        arrays["latents"][2] += 1
        save_file(arrays, path)
    else:
        path = folder / "000001.json"
        path.write_text(path.read_text(encoding="utf-8").replace("of 03", "of 30"), encoding="utf-8")
    enter(folder, path.name)
    with pytest.raises(PreparedError, match="holds other samples than the manifest's content says"):
        check(folder)


@pytest.mark.parametrize("change", ["deleted", "cut"])
@pytest.mark.parametrize("name", ["000000.safetensors", "000001.json", "000001.tar"])
def test_prepare_alone_makes_a_lost_shard_again(tmp_path: Path, change: str, name: str) -> None:
    config = PrepareConfig(
        tmp_path / "set", "scenes", scenes=4, size=64, inpainter="given", depth="given", shard_size=2, threads=1
    )
    prepare(config, say=lambda _: None)
    before = {path.name: path.read_bytes() for path in config.out.glob("0*")}
    if change == "deleted":
        (config.out / name).unlink()
    else:
        (config.out / name).write_bytes(before[name][:-9])
    said: list[str] = []
    assert prepare(config, say=said.append).complete
    assert any("1 of 2 shards to prepare" in line for line in said)
    assert {path.name: path.read_bytes() for path in config.out.glob("0*")} == before


@pytest.mark.skipif(sys.platform == "win32", reason="no modes of files")
@pytest.mark.parametrize("mask", [0o022, 0o007])
def test_files_can_be_read_by_whom_the_umask_lets(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        config = tiny_config(tmp_path, steps=1, grid_every=1, grid_steps=1, grid_samples=1)
        train_stage(config)
    finally:
        os.umask(before)
    written = [p for p in tmp_path.rglob("*") if p.suffix in (".safetensors", ".json", ".png") and p.name[:4] != "base"]
    assert {p.suffix for p in written} == {".safetensors", ".json", ".png"} and len(written) > 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o666 & ~mask}
