"""Archives of torch.save that were packed anew: read with the right values, or refused in words."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cnc_core import CheckpointError, Fusers, load_fusers
from cnc_core.weight_files import open_weights

from .archives import Entries, entries_of, write_zip, write_zip_as_a_stream
from .golden import State, of


@pytest.fixture()
def saved(tmp_path: Path, released_state: State) -> Path:
    path = tmp_path / "cnc_v1.ckpt"
    torch.save(released_state, path)
    return path


def deflated(path: Path, entries: Entries) -> None:
    write_zip(path, entries, method=lambda name: zipfile.ZIP_DEFLATED)


def deflated_tensors(path: Path, entries: Entries) -> None:
    write_zip(path, entries, method=lambda name: zipfile.ZIP_DEFLATED if "/data/" in name else zipfile.ZIP_STORED)


def deflated_pickle(path: Path, entries: Entries) -> None:
    write_zip(path, entries, method=lambda name: zipfile.ZIP_STORED if "/data/" in name else zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize("pack", [write_zip, write_zip_as_a_stream, deflated, deflated_tensors, deflated_pickle])
def test_values_are_right_however_the_archive_is_packed(
    saved: Path, fusers: Fusers, pack: Callable[[Path, Entries], None]
) -> None:
    pack(saved, entries_of(saved))
    loaded = load_fusers(saved, num_heads=4)
    for found, expected in ((loaded.local_fuser, fusers.local_fuser), (loaded.global_fuser, fusers.global_fuser)):
        assert found is not None
        assert expected is not None
        for name, value in expected.state_dict().items():
            assert torch.equal(found.state_dict()[name], value), name


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="an older torch")
def test_an_archive_without_checksums(saved: Path, released_state: State) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(released_state, saved)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_fusers(saved).global_fuser is not None


def test_a_damaged_pickle_is_found_by_its_checksum(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[data.index(b"global_adapter.norm1_fg.weight") + 3] ^= 1
    saved.write_bytes(data)
    refused(saved, "wrong checksum")


def test_tensors_of_one_storage_share_it(saved: Path, released_state: State) -> None:
    name, other = "global_adapter.norm1_fg.weight", "global_adapter.norm1_bg.weight"
    torch.save({**of(released_state, "global_adapter."), other: released_state[name]}, saved)
    deflated(saved, entries_of(saved))
    fuser = load_fusers(saved).global_fuser
    assert fuser is not None
    assert fuser.norm1_fg.weight.data_ptr() == fuser.norm1_bg.weight.data_ptr()


def test_a_large_compressed_tensor(tmp_path: Path) -> None:
    """Larger than anything of the archive that is read at once, but for the tensors."""
    state = {"large": torch.rand(2_000_000)}
    torch.save(state, tmp_path / "large.ckpt")
    deflated(tmp_path / "large.ckpt", entries_of(tmp_path / "large.ckpt"))
    assert torch.equal(open_weights(tmp_path / "large.ckpt", ("",)).tensors["large"], state["large"])


def test_damage_in_compressed_data_is_found(saved: Path) -> None:
    deflated(saved, entries_of(saved))
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 4
    saved.write_bytes(data)
    refused(saved, "damaged")


def test_compressed_tensors_that_grow_too_large(saved: Path, released_state: State) -> None:
    zeros = {name: torch.zeros_like(value) for name, value in of(released_state, "global_adapter.").items()}
    torch.save(zeros, saved)
    deflated(saved, entries_of(saved))
    refused(saved, "grow to")


def test_other_compression(saved: Path) -> None:
    write_zip(saved, entries_of(saved), method=lambda name: zipfile.ZIP_BZIP2 if "pkl" in name else zipfile.ZIP_STORED)
    refused(saved, "another way than deflate")


def test_two_entries_of_one_name(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        names = [name for name in archive.namelist() if "/data/" in name]
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(names[0], bytes(8))
    refused(saved, "several entries of one name")


@pytest.mark.parametrize(
    ("offset", "layout", "value", "words"),
    [
        (8, "<H", 1, "encrypted"),  # the flags: encrypted
        (10, "<H", 8, "disagree"),  # the method: deflate, which the entry's own header does not say
        (20, "<II", (64, 64), "disagree"),  # both sizes
        (42, "<I", 7, "disagree"),  # where the entry's own header is
    ],
)
@pytest.mark.parametrize("part", ["data.pkl", "data/0"])
def test_a_directory_that_says_otherwise(
    saved: Path, part: str, offset: int, layout: str, value: int | tuple[int, ...], words: str
) -> None:
    entries = entries_of(saved)
    write_zip(saved, entries)
    name = next(name for name in entries if name.endswith(f"/{part}")).encode()
    data = bytearray(saved.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(name))
    struct.pack_into(layout, data, at + offset, *(value if isinstance(value, tuple) else (value,)))
    saved.write_bytes(data)
    refused(saved, words)


@pytest.mark.parametrize("length", [0, 4, 8, 63])
def test_padding_of_another_length_than_the_header_says(saved: Path, length: int) -> None:
    """Values would be read from beside their place."""
    data = bytearray(saved.read_bytes())
    name = next(name for name in entries_of(saved) if name.endswith("/data/7")).encode()
    at = data.index(name) - 30
    assert data[at : at + 4] == b"PK\x03\x04"
    assert struct.unpack_from("<H", data, at + 28) != (length,)
    struct.pack_into("<H", data, at + 28, length)
    saved.write_bytes(data)
    refused(saved, "disagree")


def test_storages_of_another_size_than_the_pickle_says(saved: Path, released_state: State) -> None:
    torch.save(of(released_state, "global_adapter."), saved)
    entries = entries_of(saved)
    name = next(name for name in entries if name.endswith("/data/0"))
    for content in (entries[name][:-4], entries[name] + bytes(4)):
        write_zip(saved, {**entries, name: content})
        refused(saved, "is said to be in")
    write_zip(saved, {key: data for key, data in entries.items() if key != name})
    refused(saved, "lacks its part data/0")


def test_another_byte_order(saved: Path) -> None:
    entries = entries_of(saved)
    name = next(name for name in entries if name.endswith("/byteorder"))
    write_zip(saved, {**entries, name: b"big"})
    refused(saved, "byte order")


def refused(path: Path, words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load_fusers(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)
