"""How the benchmarks' pictures are unpacked and told apart, on pictures of the test's own."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import photographs


def test_the_files_of_a_debian_package_are_read(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        link = tarfile.TarInfo("./usr/share/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a.png"
        archive.addfile(link)
        entry = tarfile.TarInfo("./usr/share/a.png")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": lzma.compress(data.getvalue())}
    package = tmp_path / "some.deb"
    with package.open("wb") as deb:
        deb.write(b"!<arch>\n")
        for name, content in members.items():
            deb.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            deb.write(content + b"\n" * (len(content) % 2))
    assert {str(path): content for path, content in photographs._files(package)} == {"usr/share/a.png": b"abc"}
    package.write_bytes(b"something else entirely")
    with pytest.raises(ValueError, match=r"is no \.deb"):
        list(photographs._files(package))


def test_a_drawing_has_equal_neighbours_and_a_photograph_has_not() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    noise[..., 3] = 255
    flat = np.full((64, 64, 4), 255, dtype=np.uint8)
    assert photographs.share_of_equal_neighbours(noise) < 0.01
    assert photographs.share_of_equal_neighbours(flat) == 1.0
    half = np.concatenate((noise, flat))
    assert photographs.share_of_equal_neighbours(half) == pytest.approx(0.5, abs=0.01)
    flat[..., 3] = 100
    assert photographs.share_of_equal_neighbours(flat) == 0.0, "pixels that are not opaque say nothing"
