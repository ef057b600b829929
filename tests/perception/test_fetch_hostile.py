"""Servers and mirrors that are broken, or mean harm: an error in words, and nothing that bears a model's name."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from cnc_core.perception.fetch import FetchError, fetch

from .fetch_site import MODEL, Site, files, npm, unknown, web

PAGE = b"<!DOCTYPE html><html><body>" + b"log in first " * 400_000 + b"</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5120000\n"


def raw(*lines: str, body: bytes = b"", again: int = 1) -> Callable[[BinaryIO], None]:
    """An answer of these lines, and a body that comes so many times."""

    def write(file: BinaryIO) -> None:
        file.write("\r\n".join((*lines, "", "")).encode())
        for _ in range(again):
            file.write(body)

    return write


OK = "HTTP/1.1 200 OK"


@pytest.mark.parametrize("ending", ["onnx", "pt", "pth", "safetensors"])
@pytest.mark.parametrize("content", [PAGE, POINTER * 20_000, b"", b"\0" * 4_000_000, MODEL, b"PK\3\4" + MODEL])
def test_what_is_no_model_gets_no_models_name(site: Site, models: Path, content: bytes, ending: str) -> None:
    weights = unknown(site, content, ending)
    with pytest.raises(FetchError, match=r"what came is not model: it .*\. It was removed"):
        fetch(weights, models)
    assert files(models) == {}


def test_a_model_cut_short_by_a_server_that_tells_no_length_is_refused(
    site: Site, models: Path, onnx_model: bytes
) -> None:
    weights = unknown(site, onnx_model)
    site.answers["/model.onnx"] = raw(OK, body=onnx_model[:-1])
    with pytest.raises(FetchError, match="is no whole ONNX file"):
        fetch(weights, models)
    assert files(models) == {}
    site.answers.clear()
    assert fetch(weights, models).read_bytes() == onnx_model


def test_a_whole_file_of_another_size_is_refused(site: Site, models: Path, onnx_model: bytes) -> None:
    weights = unknown(site, onnx_model * 2)
    site.files["/model.onnx"] = onnx_model
    with pytest.raises(FetchError, match="bytes; expected at least"):
        fetch(weights, models)
    assert files(models) == {}


@pytest.mark.parametrize("new_zipfile", [True, False])
def test_torchs_files_come_in_both_formats_and_not_in_part(site: Site, models: Path, new_zipfile: bool) -> None:
    saved = io.BytesIO()
    torch.save({"a": torch.rand(100_000)}, saved, _use_new_zipfile_serialization=new_zipfile)
    content = saved.getvalue()
    weights = unknown(site, content, "pt")
    for damaged in (content[:-1], content[: len(content) // 2], content[:200_000] + content[210_000:]):
        site.files["/model.pt"] = damaged
        with pytest.raises(FetchError, match="what came is not model: it is no whole"):
            fetch(weights, models)
        assert files(models) == {}
    site.files["/model.pt"] = content
    assert fetch(weights, models).read_bytes() == content


def test_rubbish_under_a_models_name_is_told(site: Site, models: Path, onnx_model: bytes) -> None:
    (models / "saliency").mkdir()
    (models / "saliency" / "model.onnx").write_bytes(PAGE)
    with pytest.raises(FetchError, match=r"is there and is not model: move it away.*web page"):
        fetch(unknown(site, onnx_model), models)
    assert files(models) == {"saliency/model.onnx": PAGE}


def test_another_file_is_not_put_behind_a_part(site: Site, models: Path, onnx_model: bytes) -> None:
    """Two versions of one length: what decides is the server's mark, not a length or a checksum."""
    weights = unknown(site, onnx_model)
    site.etag, site.breaks_after = '"one"', 1_500_000
    with pytest.raises(FetchError, match="broke off"):
        fetch(weights, models)
    assert files(models)["saliency/model.onnx.part"] == onnx_model[:1_500_000]
    other = onnx_model[:1_000_000] + bytes(900_000) + onnx_model[1_900_000:]
    site.files["/model.onnx"], site.etag, site.breaks_after = other, '"two"', None
    assert fetch(weights, models).read_bytes() == other
    assert site.ranges == [None, "bytes=1500000-"]
    assert list(files(models)) == ["saliency/model.onnx"], "nor is the mark left behind"


def test_the_same_file_is_gone_on_with_by_its_mark(site: Site, models: Path, onnx_model: bytes) -> None:
    weights = unknown(site, onnx_model)
    site.etag, site.breaks_after = '"one"', 1_500_000
    with pytest.raises(FetchError, match="broke off"):
        fetch(weights, models)
    site.breaks_after = None
    assert fetch(weights, models).read_bytes() == onnx_model
    assert site.ranges == [None, "bytes=1500000-"]


def test_a_part_that_cannot_be_gone_on_with_is_not_left(site: Site, models: Path, onnx_model: bytes) -> None:
    site.breaks_after = 1_500_000
    for site.etag in (None, 'W/"one"'):
        with pytest.raises(FetchError, match="broke off"):
            fetch(unknown(site, onnx_model), models)
        assert files(models) == {}


@pytest.mark.parametrize("comes", [None, "bytes 0-4/5", "bytes 3000001-5119999/5120000", "bytes */5", "nonsense"])
def test_a_range_that_was_not_asked_for_begins_anew(site: Site, models: Path, comes: str | None) -> None:
    weights = web(site)
    (models / "saliency").mkdir()
    (models / "saliency" / "model.onnx.part").write_bytes(MODEL[:3_000_000])

    def answer(file: BinaryIO) -> None:
        ranged = ("HTTP/1.1 206 Partial Content", *([f"Content-Range: {comes}"] if comes else []))
        raw(*(ranged if site.ranges[-1] else (OK,)), body=MODEL)(file)

    site.answers["/model.onnx"] = answer
    assert fetch(weights, models).read_bytes() == MODEL
    assert site.ranges == ["bytes=3000000-", None]


@pytest.mark.parametrize("left", [b"", MODEL[:9]])
@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("HTTP/1.1 416 Range Not Satisfiable", "cannot be had: 416"),
        ("HTTP/1.1 206 Partial Content", "cannot be had: it answers with 206"),
        ("HTTP/1.1 204 No Content", "cannot be had: it answers with 204"),
        ("HTTP/1.1 304 Not Modified", "cannot be had: 304"),
        ("HTTP/1.1 500 Oops", "cannot be had: 500"),
        ("HTTP/1.1 999", "cannot be had: 999"),
        ("220 ftp.example.org", "cannot be reached"),
        ("", "cannot be reached"),
        ("HTTP/1.1 200 " + "x" * 70_000, "cannot be reached"),
    ],
)
def test_an_answer_that_is_no_file_is_told(site: Site, models: Path, first: str, said: str, left: bytes) -> None:
    weights = web(site)
    (models / "saliency").mkdir()
    (models / "saliency" / "model.onnx.part").write_bytes(left)
    site.answers["/model.onnx"] = raw(first, "Content-Length: 3", body=b"abc")
    with pytest.raises(FetchError, match=said):
        fetch(weights, models)
    assert not (models / "saliency" / "model.onnx").exists()


@pytest.mark.parametrize("length", ["-1", "-5", "many", "", "1e3", "1_000", "5120000, 5120000", "9" * 5000, "+7"])
def test_a_length_that_is_no_number_is_told(site: Site, models: Path, length: str) -> None:
    weights = web(site)
    site.answers["/model.onnx"] = raw(OK, f"Content-Length: {length}", body=MODEL)
    with pytest.raises(FetchError, match="gives no number of bytes as its Content-Length"):
        fetch(weights, models)
    assert files(models) == {}


def test_two_lengths_and_one_too_large_are_told(site: Site, models: Path) -> None:
    weights = web(site)
    site.answers["/model.onnx"] = raw(OK, "Content-Length: 5120000", "Content-Length: 9", body=MODEL)
    with pytest.raises(FetchError, match="gives no number of bytes"):
        fetch(weights, models)
    site.answers["/model.onnx"] = raw(OK, "Content-Length: 5120001", body=MODEL)
    with pytest.raises(FetchError, match=r"has 5,120,001 bytes, and what is asked for has 5,120,000 at most"):
        fetch(weights, models)
    assert files(models) == {}


BLOCK = b"x" * (1 << 20)


@pytest.mark.parametrize(
    ("head", "body", "said"),
    [
        ((), BLOCK, "does not end"),
        (("Transfer-Encoding: chunked",), b"100000\r\n" + BLOCK + b"\r\n", "does not end"),
        (("Transfer-Encoding: chunked", "\r\n-1"), BLOCK, "does not end|broke off"),
        (("Transfer-Encoding: chunked", "\r\nffffffffffff"), BLOCK, "does not end"),
        (("Transfer-Encoding: chunked", "\r\nwhat"), BLOCK, "broke off"),
    ],
    ids=["no length", "chunks", "a negative chunk", "a huge chunk", "no chunk"],
)
def test_a_server_that_goes_on_for_ever_fills_neither_disk_nor_memory(
    site: Site, models: Path, head: tuple[str, ...], body: bytes, said: str
) -> None:
    weights = web(site)
    lines = "\r\n".join((OK, *head)) + ("\r\n" if len(head) == 2 else "\r\n\r\n")

    def answer(file: BinaryIO) -> None:
        file.write(lines.encode())
        for _ in range(600):
            file.write(body)

    site.answers["/model.onnx"] = answer
    before, largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    part = models / "saliency" / "model.onnx.part"

    def watch(*_: int | None) -> None:
        nonlocal largest
        largest = max(largest, part.stat().st_size)

    with pytest.raises(FetchError, match=said):
        fetch(weights, models, progress=watch)
    assert largest <= len(MODEL)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    assert not (models / "saliency" / "model.onnx").exists()
    assert said != "does not end" or files(models) == {}


@pytest.mark.parametrize(
    "place",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/model.onnx",
        "data:,hello",
        "http://[",
        "http://127.0.0.1:99999/",
        "//",
        "/model.onnx",
    ],
)
def test_a_redirect_to_nowhere_is_told(site: Site, models: Path, place: str) -> None:
    weights = web(site)
    site.answers["/model.onnx"] = raw("HTTP/1.1 302 Found", f"Location: {place}", "Content-Length: 0")
    with pytest.raises(FetchError, match=r"cannot be had|cannot be reached|which is not fetched"):
        fetch(weights, models)
    assert files(models) == {}


def test_a_redirect_is_followed(site: Site, models: Path) -> None:
    weights = web(site)
    site.files["/elsewhere"] = MODEL
    site.answers["/model.onnx"] = raw("HTTP/1.1 302 Found", "Location: /elsewhere", "Content-Length: 0")
    assert fetch(weights, models).read_bytes() == MODEL


@pytest.mark.parametrize(
    "mirror",
    [
        "registry.example.org", "file:///etc", "ftp://example.org", "http:/example.org", "http://", "https://:80",
        "http://a b",
        "http://[::1", "http://example.org:port", "http://example.org:99999", "http://example.org:-1", "http://a..b",
        "http://example.org/?a=", "http://example.org/#a", "http://me:word@example.org", "http://b\u00fccher.example",
        "http://example.org/\r\nX: y", "http://example.org/\0", "http://" + "a" * 300, "javascript:alert(1)", " ",
    ],
)  # fmt: skip
def test_a_mirror_that_is_no_address_is_told(site: Site, models: Path, mirror: str) -> None:
    for weights in (npm(site), web(site)):
        with pytest.raises(FetchError, match="is no mirror"):
            fetch(weights, models, mirror=mirror)
    assert files(models) == {}
