"""Damage to a prepared set: whatever was changed in it is an error in words, and `check` finds it."""

import argparse
import copy
import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from training.prepare.command import _check
from training.prepared import PreparedError, PreparedSet, damaged_shards, read_manifest

from .test_prepared_set import write_set

MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "set"
    write_set(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "set"))


def check(folder: Path) -> None:
    """What `python -m training check` does; raises PreparedError where something is wrong."""
    read_manifest(folder)
    if wrong := damaged_shards(folder):
        raise PreparedError("; ".join(wrong.values()))


def read(folder: Path, *, verify: bool) -> None:
    """Open it and read all that there is."""
    opened = PreparedSet(folder, verify=verify)
    for index in range(len(opened)):
        assert opened.id(index) and opened.captions(index) and opened.pictures(index)
        opened.batch([index])


def refused(act: Callable[[], None]) -> bool:
    """Whether it is refused in words; any other exception than that is the test's."""
    try:
        act()
    except PreparedError as error:
        assert len(str(error)) > 20, error
        return True
    return False


def must_be_found(folder: Path, what: str) -> None:
    assert refused(lambda: check(folder)), f"check does not find {what}"
    assert refused(lambda: read(folder, verify=True)), f"reading does not find {what}"
    refused(lambda: read(folder, verify=False))


def flipped(content: bytes, bit: int) -> bytes:
    return content[: bit // 8] + bytes([content[bit // 8] ^ (1 << bit % 8)]) + content[bit // 8 + 1 :]


def test_any_flipped_bit_of_a_shard_is_found(folder: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for path in sorted(folder.glob("00*")):
        content = path.read_bytes()
        size = 8 * len(content)
        head = 8 * min(len(content), 2048)
        for bit in {*(rng.randrange(size) for _ in range(9)), *(rng.randrange(head) for _ in range(6)), 0, size - 1}:
            path.write_bytes(flipped(content, bit))
            must_be_found(folder, f"bit {bit} of {path.name}")
        path.write_bytes(content)
    check(folder)


@pytest.mark.parametrize("count", [300, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])
def test_any_flipped_bit_of_the_manifest_is_found_on_opening(folder: Path, count: int | None) -> None:
    path = folder / MANIFEST
    content = path.read_bytes()
    seed = random.randrange(1 << 32)
    print("seed", seed)
    bits = range(8 * len(content))
    for bit in random.Random(seed).sample(bits, count) if count else bits[::3]:
        path.write_bytes(flipped(content, bit))
        assert refused(lambda: PreparedSet(folder)), f"bit {bit}"


def test_files_cut_short_are_found_on_opening(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for size in {0, 1, 7, 8, 9, 511, 512, 513, len(content) // 2, len(content) - 512, len(content) - 1}:
            if 0 <= size < len(content):
                path.write_bytes(content[:size])
                assert refused(lambda: PreparedSet(folder)), f"{path.name} with {size} bytes"
                assert refused(lambda: check(folder)), f"{path.name} with {size} bytes"
        path.write_bytes(content)


def places(told: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value stands in nested lists and dicts, each of them and all in them."""
    yield place
    inside = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    for name, value in inside:
        yield from places(value, (*place, name))


DEEP = json.loads("[" * 500 + "]" * 500)
OTHERS = (None, True, -1, 1.0, float("nan"), 10**30, "text", [], [1], {"a": 1}, DEEP)


def changed(told: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    told = copy.copy(told)
    told[place[0]] = changed(told[place[0]], place[1:], value)
    return told


def write_manifest_text(folder: Path, told: Any, *, checksum: bool) -> None:
    """Write what may be no manifest, with a right checksum or as versions did that had none."""
    if isinstance(told, dict):
        told = {name: value for name, value in told.items() if name != "sha256"}
    if checksum and isinstance(told, dict):
        text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
        told = {"sha256": hashlib.sha256(text.encode()).hexdigest(), **told}
    (folder / MANIFEST).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("checksum", [True, False])
def test_every_retyped_field_of_the_manifest_is_told(folder: Path, checksum: bool) -> None:
    """Where the checksum was made anew, or is not there, the fields' own types decide."""
    told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    checked = [place for place in places(told) if place[:1] != ("sha256",)]
    for place in checked:
        for other in OTHERS:
            write_manifest_text(folder, changed(told, place, other), checksum=checksum)
            found = refused(lambda: read(folder, verify=True))
            value = told
            for name in place:
                value = value[name]
            free = place[:1] in (("source",), ("options",)) and len(place) > 1
            same = type(value) is type(other)
            assert found or free or same or (value == () and other == []), f"{place}: {other!r:.80}"
    write_manifest_text(folder, told, checksum=checksum)
    read(folder, verify=True)


def test_fields_that_are_missing_or_unknown_are_told(folder: Path) -> None:
    told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    optional = (
        "about",
        "condition",
        "skipped",
        "complete",
        "models",
        "source",
        "options",
        "000000.tar",
        "000001.tar",
        "000002.tar",
    )
    for place in places(told):
        if not place or not isinstance(place[-1], str) or place == ("sha256",):
            continue
        inside = told
        for name in place[:-1]:
            inside = inside[name]
        without = {name: value for name, value in inside.items() if name != place[-1]}
        renamed = {**without, f"{place[-1]}!": inside[place[-1]]}
        for wrong in [renamed] if place[-1] in optional else [renamed, without]:
            write_manifest_text(folder, changed(told, place[:-1], wrong), checksum=True)
            assert refused(lambda: read(folder, verify=True)), place


def test_shards_in_another_order_are_told(folder: Path) -> None:
    told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    first, second, third = told["shards"]
    for shards in ([second, first, third], [first, first, third], [third, second, first], [first, second]):
        write_manifest_text(folder, {**told, "shards": shards}, checksum=True)
        assert refused(lambda: PreparedSet(folder)), [shard["number"] for shard in shards]
    for name in ("samples", "ids", "content", "files", "number"):
        swapped = [{**first, name: second[name]}, {**second, name: first[name]}, third]
        write_manifest_text(folder, {**told, "shards": swapped}, checksum=False)
        assert refused(lambda: read(folder, verify=False)) or first[name] == second[name] or name == "content", name


@pytest.mark.parametrize("ending", ["safetensors", "json", "tar"])
def test_two_shards_files_that_are_exchanged_are_found(folder: Path, ending: str) -> None:
    one, other = folder / f"000000.{ending}", folder / f"000001.{ending}"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    must_be_found(folder, f"the exchanged {ending}")


def enter(folder: Path, name: str) -> None:
    """Let the manifest say of a file what is there now, as someone would who changes a set by hand."""
    told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    content = (folder / name).read_bytes()
    shard = told["shards"][int(name[:6])]
    shard["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_manifest_text(folder, told, checksum=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {**arrays, "mask": arrays["mask"].astype(np.uint16)},
        lambda arrays: {**arrays, "mask": arrays["mask"].astype(np.int64)},
        lambda arrays: {**arrays, "mask": arrays["mask"][:, :-1]},
        lambda arrays: {**arrays, "mask": arrays["mask"][:-1]},
        lambda arrays: {name: array for name, array in arrays.items() if name != "mask"},
        lambda arrays: {**arrays, "more": arrays["mask"]},
        lambda arrays: {**arrays, "mask": np.array(7, np.uint8)},
    ],
    ids=["uint16", "int64", "narrower", "fewer", "missing", "more", "a number"],
)
def test_arrays_of_other_types_and_shapes_are_found_on_opening(folder: Path, change: Callable[[Any], Any]) -> None:
    path = folder / "000001.safetensors"
    arrays = {name: np.ascontiguousarray(array) for name, array in change(load_file(path)).items()}
    save_file(arrays, path)
    enter(folder, path.name)
    with pytest.raises(PreparedError, match=r"(mask|more) in .*000001\.safetensors is .*, not "):
        PreparedSet(folder)
    assert refused(lambda: check(folder))


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "7", "[]", "{}", "not JSON", "[" * 100_000, '{"ids": 1, "captions": 2}', '{"ids": null}', "\ud800",
        '{"ids": ["a", "b", "c"], "captions": [["a"], ["b"], []]}',
        '{"ids": ["a", "b", 3], "captions": [["a"], ["b"], ["c"]]}',
        '{"ids": ["a", "b", "c"], "captions": [["a"], ["b"], [3]]}',
        '{"ids": ["a", "b", "c"], "captions": [["a"], ["b"], "c"]}',
        '{"ids": ["a", "b", "c"], "captions": [["a"], ["b"], ["c"]]}', '{"ids": ["a"], "captions": [["a"]]}',
    ],
    ids=lambda text: text[:70].replace("\ud800", "surrogate"),
)  # fmt: skip
def test_ids_and_captions_of_another_form_are_told(folder: Path, text: str) -> None:
    (folder / "000001.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    enter(folder, "000001.json")
    must_be_found(folder, text)


def test_samples_in_another_order_are_told(folder: Path) -> None:
    told = json.loads((folder / "000001.json").read_text(encoding="utf-8"))
    told = {name: values[::-1] for name, values in told.items()}
    (folder / "000001.json").write_text(json.dumps(told), encoding="utf-8")
    enter(folder, "000001.json")
    with pytest.raises(PreparedError, match="has other samples than its manifest says, or in another order"):
        read(folder, verify=False)
    assert refused(lambda: check(folder))


def test_a_set_that_was_prepared_before_manifests_had_a_checksum_opens(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    write_manifest_text(folder, told, checksum=False)
    read(folder, verify=True)
    _check(argparse.Namespace(set=folder, repair=False))
    assert re.search("no checksum.*complete and undamaged", capsys.readouterr().out, re.DOTALL)
    write_set(folder)
    _check(argparse.Namespace(set=folder, repair=False))
    assert "no checksum" not in capsys.readouterr().out, "its own command adds one"
