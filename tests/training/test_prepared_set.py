"""The prepared set's format, on made-up arrays: what is written is what is read, whole or not at all."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.files import FolderInUse, only_run_in
from training.prepared import (
    Manifest,
    PreparedError,
    PreparedSet,
    Sample,
    SetWriter,
    Skip,
    array_specs,
    damaged_shards,
    drop_shards,
    to_float,
)

SPECS = array_specs((4, 6), 5, text_dim=3, captions=2, deviation=True, source_depth=True)
NAMES = [f"{number:02d}/picture.a" for number in range(7)]


def made_up(name: str) -> Sample:
    rng = np.random.default_rng(list(name.encode()))
    arrays = {n: rng.integers(0, 250, spec.shape).astype(spec.dtype) for n, spec in SPECS.items()}
    arrays["caption_count"] = np.array(2, np.uint8)
    arrays["mask"] = (arrays["mask"] > 99).astype(np.uint8) * 255
    arrays["fg_depth"] = rng.integers(0, 65536, SPECS["fg_depth"].shape).astype(np.uint16)
    return Sample(
        name, (f"of {name}", 'colon: tab\t line\n "quoted" \u5c71'), arrays, {"source.png": b"PNG " + name.encode()}
    )


def write_set(folder: Path, names: Sequence[str] = NAMES, shard_size: int = 3) -> Manifest:
    manifest = Manifest((32, 48), (4, 6), SPECS, items=len(names), shard_size=shard_size)
    writer = SetWriter(folder, manifest)
    for number in writer.missing():
        writer.write(number, [made_up(name) for name in names[number * shard_size : (number + 1) * shard_size]])
    return writer.finish()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_set(tmp_path / "set")
    return tmp_path / "set"


def test_what_is_written_is_what_is_read(folder: Path) -> None:
    read = PreparedSet(folder)
    assert len(read) == 7
    order = [5, 0, 6, 5, 2]
    batch = read.batch(order, raw=True)
    assert batch.keys() == SPECS.keys()
    for row, index in enumerate(order):
        sample = made_up(NAMES[index])
        for name, array in sample.arrays.items():
            assert batch[name][row].numpy().dtype == array.dtype
            np.testing.assert_array_equal(batch[name][row].numpy(), array)
        assert read.captions(index) == sample.captions
        assert read.id(index) == sample.id
        assert read.pictures(index)["source.png"] == sample.pictures["source.png"]
    read.verify()


def test_arrays_of_any_strides_are_written_as_they_read(tmp_path: Path) -> None:
    samples = [made_up(name) for name in "ab"]
    for sample in samples:  # as a network gives them that has been given channels last
        latents = sample.arrays["latents"]
        sample.arrays["latents"] = np.ascontiguousarray(latents.transpose(1, 2, 0)).transpose(2, 0, 1)
    writer = SetWriter(tmp_path, Manifest((32, 48), (4, 6), SPECS, items=2, shard_size=2))
    writer.write(0, samples)
    writer.finish()
    for row, sample in zip(PreparedSet(tmp_path).batch([0, 1], raw=True)["latents"], samples, strict=True):
        np.testing.assert_array_equal(row.numpy(), sample.arrays["latents"])


def test_networks_get_depth_and_masks_in_0_to_1(folder: Path) -> None:
    read = PreparedSet(folder)
    raw, batch, alone = read.batch([3, 4], raw=True), read.batch([3, 4]), read[3]
    expected = raw["fg_depth"].numpy().astype(np.float64) / 65535
    np.testing.assert_allclose(batch["fg_depth"].numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(batch["mask"].numpy(), raw["mask"].numpy() / 255.0, atol=1e-7)
    assert batch["fg_depth"].dtype == batch["latents"].dtype == torch.float32
    assert batch["caption_count"].tolist() == [2, 2]
    for name, value in to_float(raw).items():
        assert torch.equal(value, batch[name]) and torch.equal(alone[name], batch[name][0]), name


def test_the_content_hash_depends_on_the_samples_alone(tmp_path: Path, folder: Path) -> None:
    content = PreparedSet(folder).manifest.content
    assert write_set(tmp_path / "other", NAMES[::-1], shard_size=2).content == content
    assert write_set(tmp_path / "fewer", NAMES[:-1]).content != content


def test_files_are_the_same_bytes_when_written_again(tmp_path: Path, folder: Path) -> None:
    write_set(tmp_path / "again")
    for path in sorted(folder.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_writer_goes_on_where_another_stopped(tmp_path: Path) -> None:
    manifest = Manifest((32, 48), (4, 6), SPECS, items=4, shard_size=2)
    first = SetWriter(tmp_path, manifest)
    first.write(1, [made_up("c")], [Skip("d", "truncated", "at byte 9")])
    with pytest.raises(PreparedError, match="unfinished: 1 of 2 shards"):
        PreparedSet(tmp_path)
    assert len(PreparedSet(tmp_path, partial=True)) == 1
    (tmp_path / "000000.safetensors.99.new").write_bytes(b"left by a run that was killed")
    with pytest.raises(PreparedError, match="lacks 1 shards"):
        first.finish()
    second = SetWriter(tmp_path, manifest)
    assert second.missing() == [0]
    second.write(0, [], [Skip("a", "empty mask"), Skip("b", "truncated")])
    second.finish()
    read = PreparedSet(tmp_path)
    assert (len(read), read.id(0)) == (1, "c")
    assert read.manifest.skipped == {"empty mask": 1, "truncated": 2}
    assert not list(tmp_path.glob("*.new"))


def test_a_folder_begun_otherwise_is_refused(folder: Path) -> None:
    begun = PreparedSet(folder).manifest
    with pytest.raises(PreparedError, match=r"options.seed is .* there, 4 here"):
        SetWriter(folder, replace(begun, options={"seed": 4}))


def test_a_flipped_byte_is_caught_on_first_use_and_by_verify(folder: Path) -> None:
    path = folder / "000001.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    read = PreparedSet(folder)
    read.batch([0, 2])
    with pytest.raises(PreparedError, match=r"000001\.safetensors has changed"):
        read.batch([3])
    with pytest.raises(PreparedError, match=r"000001\.safetensors has changed"):
        read.verify()
    PreparedSet(folder, verify=False).batch([3])


def test_a_damaged_shard_is_taken_out_and_written_again(folder: Path) -> None:
    before = PreparedSet(folder).manifest
    path = folder / "000001.tar"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    wrong = damaged_shards(folder)
    assert list(wrong) == [1] and "000001.tar has changed" in wrong[1]
    drop_shards(folder, wrong)
    writer = SetWriter(folder, before)
    assert writer.missing() == [1]
    writer.write(1, [made_up(name) for name in NAMES[3:6]])
    assert writer.finish() == before
    PreparedSet(folder).verify()


def test_values_that_cannot_be_are_found(tmp_path: Path) -> None:
    writer = SetWriter(tmp_path, Manifest((32, 48), (4, 6), SPECS, items=2, shard_size=1))
    for number, name in enumerate("ab"):
        sample = made_up(name)
        sample.arrays["latents"][0, 0, 0] = np.nan if name == "b" else 0
        writer.write(number, [sample])
    assert damaged_shards(tmp_path) == {1: "latents has values that are not numbers"}


def test_a_missing_or_shortened_file_is_caught_on_opening(folder: Path) -> None:
    path = folder / "000002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PreparedError, match=r"000002\.safetensors has"):
        PreparedSet(folder)
    path.unlink()
    with pytest.raises(PreparedError, match=r"000002\.safetensors is missing"):
        PreparedSet(folder)


def test_another_schema_and_what_is_no_set_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PreparedError, match="is no prepared set"):
        PreparedSet(tmp_path)
    told = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**told, "schema": 2}))
    with pytest.raises(PreparedError, match="has schema 2; this code reads 1"):
        PreparedSet(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(PreparedError, match="is damaged"):
        PreparedSet(folder)


def test_samples_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    writer = SetWriter(tmp_path, Manifest((32, 48), (4, 6), SPECS, items=2, shard_size=2))
    wrong = made_up("a")
    wrong.arrays["mask"] = wrong.arrays["mask"][1:]
    with pytest.raises(PreparedError, match=r"mask of sample a is uint8 \(31, 48\), not uint8 \(32, 48\)"):
        writer.write(0, [wrong])
    with pytest.raises(PreparedError, match="same id"):
        writer.write(0, [made_up("a"), made_up("a")])


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    """The system's limit on a file's size stands for the disk's: writing fails half-way in the same way."""
    resource = pytest.importorskip("resource")
    manifest = Manifest((32, 48), (4, 6), SPECS, items=2, shard_size=1)
    writer = SetWriter(tmp_path, manifest)
    writer.write(0, [made_up("a")])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(OSError, match=r"the disk is full .* what was finished before is kept"):
            writer.write(1, [made_up("b")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*.new")) and not (tmp_path / "000001.safetensors").exists()
    again = SetWriter(tmp_path, manifest)
    assert again.missing() == [1]
    again.write(1, [made_up("b")])
    again.finish()
    PreparedSet(tmp_path).verify()


def test_a_set_travels_to_another_process(folder: Path) -> None:
    read = PreparedSet(folder)
    read.batch([0])
    again = pickle.loads(pickle.dumps(read))  # noqa: S301 - as a loader's workers do
    assert torch.equal(again.batch([6])["latents"], read.batch([6])["latents"])


def test_a_second_run_is_refused_until_the_first_ends_however_it_ends(tmp_path: Path, root: Path) -> None:
    held = f"""
        import sys, time; sys.path.insert(0, {str(root)!r})
        from pathlib import Path
        from training.files import only_run_in
        with only_run_in(Path({str(tmp_path)!r})):
            print("held", flush=True)
            time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(held)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(FolderInUse, match=f"is in use by process {process.pid} on "), only_run_in(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with only_run_in(tmp_path):
        assert str(os.getpid()) in (tmp_path / "run.pid").read_text()


def test_several_sets_are_read_as_one(tmp_path: Path, folder: Path) -> None:
    write_set(tmp_path / "more", [f"more {number}" for number in range(4)], shard_size=2)
    parts = [PreparedSet(folder), PreparedSet(tmp_path / "more")]
    both = PreparedSet(folder, tmp_path / "more")
    assert len(both) == 11 and both.manifest.samples == 11
    for index in range(11):
        part, own = (parts[0], index) if index < 7 else (parts[1], index - 7)
        assert (both.id(index), both.captions(index)) == (part.id(own), part.captions(own))
        assert both.pictures(index) == part.pictures(own)
        for name, value in part[own].items():
            assert torch.equal(both[index][name], value), name
    mixed = both.batch([8, 0, 9], raw=True)
    assert torch.equal(mixed["latents"][1], parts[0].batch([0], raw=True)["latents"][0])
    assert both.content != PreparedSet(tmp_path / "more", folder).content, "another order is another training"
    assert parts[0].content == parts[0].manifest.content
    assert pickle.loads(pickle.dumps(both)).id(10) == both.id(10)  # noqa: S301 - its own
    both.verify()
    damaged = tmp_path / "more" / "000001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x07")
    with pytest.raises(PreparedError, match=r"more.000001\.safetensors has changed"):
        both.verify()


def test_sets_with_fewer_captions_join_and_others_do_not(tmp_path: Path, folder: Path) -> None:
    def other(name: str, **changes: object) -> Path:
        specs = {**SPECS, **changes.pop("arrays", {})}  # type: ignore[dict-item]
        manifest = replace(Manifest((32, 48), (4, 6), specs, items=1, shard_size=1), **changes)  # type: ignore[arg-type]
        sample = made_up("one")
        arrays = {**sample.arrays, "text": sample.arrays["text"][:1] + 1} if "text" in specs else sample.arrays
        writer = SetWriter(tmp_path / name, manifest)
        writer.write(0, [replace(sample, captions=("one",), arrays={n: arrays[n] for n in specs})])
        writer.finish()
        return tmp_path / name

    fewer = {"text": replace(SPECS["text"], shape=(1, *SPECS["text"].shape[1:]))}
    both = PreparedSet(folder, other("fewer", arrays=fewer))
    assert both.manifest.arrays["text"].shape[0] == 2
    text = both.batch([0, 7])["text"]
    assert text[1, 0].any() and not text[1, 1].any() and text[0, 1].any()
    assert both.batch([7, 0], captions=[0, 1])["text"].shape == (2, *SPECS["text"].shape[1:])
    with pytest.raises(PreparedError, match="condition is 'depth' in one, 'canny' in another"):
        PreparedSet(folder, other("edges", arrays=fewer, condition="canny"))
    with pytest.raises(PreparedError, match="autoencoder is None in one, 'mini' in another"):
        PreparedSet(folder, other("encoded", arrays=fewer, models={"autoencoder": {"name": "mini"}}))
