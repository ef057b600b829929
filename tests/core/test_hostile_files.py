"""Files made to take all the time or memory there is: each is refused within 10 s and 300 MB."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .archives import entries_of, write_pickle, write_zip
from .golden import State, of

MEASURE = """
import json, os, resource, sys, time
from cnc_core import CheckpointError, load_fusers

def child(path):
    # The peak of the child's memory begins at what it shares with this process.
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
        try:
            load_fusers(path)
        except CheckpointError as error:
            print(json.dumps(str(error)), flush=True)
        else:
            print(json.dumps("loaded"), flush=True)
        os._exit(0)
    _, status, usage = os.wait4(pid, 0)
    return status, usage.ru_maxrss // 1024

good, *paths = sys.argv[1:]
load_fusers(good)  # all that is imported lazily
_, before = child(good)
for path in paths:
    start = time.monotonic()
    status, peak = child(path)
    print(json.dumps([path, status, round(time.monotonic() - start, 2), peak - before]), flush=True)
"""
"""Loads each file in a process of its own and prints what was said, then the file, exit status, seconds and MB."""


def many_blocks(path: Path, state: State) -> None:
    """One key that names the block three million."""
    save_file({**state, "local_adapter.input_blocks.3000000.0.weight": torch.zeros(1)}, path)


def many_blocks_in_one_level(path: Path, state: State) -> None:
    rest = {name: value for name, value in state.items() if ".op." not in name}
    save_file({**rest, "local_adapter.input_blocks.3000000.0.weight": torch.zeros(1)}, path)


def many_levels(path: Path, state: State) -> None:
    downsamples = {f"local_adapter.input_blocks.{n}.0.op.weight": torch.zeros(32, 1, 1, 1) for n in range(3, 20_000)}
    extractors = {
        f"local_adapter.feature_extractor.extractors.{n}.0.weight": torch.zeros(8, 1, 1, 1) for n in range(20_000)
    }
    save_file({**state, **downsamples, **extractors}, path)


def pickle_of_zeros(path: Path, state: State) -> None:
    """320 MB that take 2 in the file."""
    write_pickle(path, bytes(320 << 20), deflated=True)


def million_dicts(path: Path, state: State) -> None:
    write_pickle(path, b"\x80\x02" + b"}" * (15 << 20) + b".")


def million_marks(path: Path, state: State) -> None:
    write_pickle(path, b"\x80\x02" + b"(" * (15 << 20) + b".")


def nested_tuples(path: Path, state: State) -> None:
    write_pickle(path, b"\x80\x02}" + b")" + b"\x85" * 900_000 + b"K\x01s.")


def nested_dicts(path: Path, state: State) -> None:
    """100,000 dicts, one in the other."""
    write_pickle(path, b"\x80\x02}" + b"X\x01\x00\x00\x00a}" * 100_000 + b"s" * 100_000 + b".")


def billion_laughs(path: Path, state: State) -> None:
    """Thirty dicts, each with the next one ten times over."""
    pickled = b"\x80\x02}q\x00"
    for depth in range(30):
        entries = b"".join(b"X\x01\x00\x00\x00" + b"%d" % n + b"h" + bytes([depth]) for n in range(10))
        pickled += b"}q" + bytes([depth + 1]) + b"(" + entries + b"u"
    write_pickle(path, pickled + b".")


def shared_long_names(path: Path, state: State) -> None:
    """A dict of 90,000 entries under 1000 long names."""
    inner = b"}q\x00(" + b"".join(b"X\x05\x00\x00\x00%05dK\x01" % n for n in range(90_000)) + b"u"
    outer = b"".join(b"X\xfa\x00\x00\x00%0250d" % n + b"h\x00" for n in range(1000))
    write_pickle(path, b"\x80\x02" + inner + b"0}(" + outer + b"u.")


def colliding_keys(path: Path, state: State) -> None:
    """Integers of one hash value, as keys of a dict."""
    numbers = (n * (2**61 - 1) for n in range(200_000))
    keys = b"".join(b"\x8a\x0b" + n.to_bytes(11, "little") + b"N" for n in numbers)
    write_pickle(path, b"\x80\x02}(" + keys + b"u.")


def colliding_memo(path: Path, state: State) -> None:
    write_pickle(path, b"N" + b"".join(b"p%d\n" % (n * (2**61 - 1)) for n in range(200_000)) + b".")


def large_view(path: Path, state: State) -> None:
    """A tensor of 10^12 elements that shares one value."""
    name = "global_adapter.norm1_fg.weight"
    torch.save({**state, name: torch.zeros(1).expand(10**6, 10**6)}, path)


def large_header(path: Path, state: State) -> None:
    """A header of 2 GB, mostly a hole in the file."""
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2 << 30) + b'{"a":')
        file.truncate(2 << 30)


def header_of_many_keys(path: Path, state: State) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"local_adapter.{n}": entry for n in range(98_000)}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def large_directory(path: Path, state: State) -> None:
    """A zip archive whose directory has 1 GB, a hole in the file."""
    size = 1 << 30
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(size)
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, size - 4, 4, 0))


def large_and_wrong(path: Path, state: State) -> None:
    """400 MB of the older format, whose keys are those of fusers but for one."""
    torch.save(
        {**of(state, "global_adapter."), "global_adapter.extra": torch.empty(100 << 20)},
        path,
        _use_new_zipfile_serialization=False,
    )


def large_compressed(path: Path, state: State) -> None:
    """A tensor of 400 MB, zeros, that takes 2 in the file."""
    torch.save({**of(state, "global_adapter."), "global_adapter.norm1_fg.weight": torch.zeros(100 << 20)}, path)
    write_zip(path, entries_of(path), method=lambda name: zipfile.ZIP_DEFLATED)


def larger_than_memory(path: Path, state: State) -> None:
    """A tensor of 4 TB, a hole in the file."""
    size = 4 << 40
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps({"global_adapter.norm1_fg.weight": entry}).encode()
    with path.open("wb") as file, contextlib.suppress(OSError):  # some file systems have no such file
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)


def large_config(path: Path, state: State) -> None:
    save_file(of(state, "global_adapter."), path, metadata={"config": "[" + "[]," * 2_000_000 + "1]"})


def legacy_string(path: Path, state: State) -> None:
    """An older file that says it begins with a string of 3 GB."""
    with path.open("wb") as file:
        file.write(b"\x80\x02X" + struct.pack("<I", 3 << 30))
        file.truncate(3 << 30)


Write = Callable[[Path, State], None]

QUICK: list[Write] = [
    *(many_blocks, many_blocks_in_one_level, pickle_of_zeros, nested_dicts, billion_laughs, shared_long_names),
    *(colliding_keys, colliding_memo, large_view, large_header, large_directory, large_and_wrong, large_compressed),
    *(large_config, legacy_string, larger_than_memory),
]
SLOW: list[Write] = [many_levels, million_dicts, million_marks, nested_tuples, header_of_many_keys]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures with fork")
@pytest.mark.parametrize("hostile", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "slow"])
def test_what_is_refused_takes_little_time_and_memory(
    tmp_path: Path, released_state: State, hostile: list[Write]
) -> None:
    state = of(released_state, "local_adapter.", "global_adapter.")
    torch.save(released_state, tmp_path / "good.ckpt")
    for write in hostile:
        write(tmp_path / write.__name__, state)
    paths = [tmp_path / "good.ckpt", *(tmp_path / write.__name__ for write in hostile)]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, *map(str, paths)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(result.stdout, result.stderr)
    for path in paths:
        path.unlink()  # some are large
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    said = [line for line in lines if isinstance(line, str)]
    measured = [line for line in lines if isinstance(line, list)]
    assert [name for name, *_ in measured] == [str(path) for path in paths[1:]], result.stderr
    for name, status, seconds, megabytes in measured:
        assert status == 0, name
        assert seconds < 10, name
        assert megabytes < 300, name
    assert [message for message in said[1:] if not message.startswith(str(tmp_path))] == []
    assert max(map(len, said)) < 2000
