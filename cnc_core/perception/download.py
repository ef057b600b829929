"""One file over HTTP: all of this repository that downloads.

A server is not trusted: it is told how many bytes may come at most, and what it says of itself is checked. What
cannot be gone on with is not left behind.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and, where the server tells, those that there will be."""

BLOCK = 1 << 20
_TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""

_USER_AGENT = "compose-and-conquer"  # some hosts refuse the default one

_NETWORK = "Check the connection (behind a proxy: HTTPS_PROXY), or name a --mirror"


class FetchError(Exception):
    """A model that could not be fetched; the text says what to do."""


def address(site: str, place: str) -> str:
    """The address of a place at a site, or at the mirror that stands in for it. Raises FetchError for no address."""
    expected = "its address begins with https:// or http:// and a host, in ASCII, without spaces and any of ?#@"
    try:
        parts = urlsplit(site)
        host = (parts.hostname or "").encode("idna")
        fits = parts.scheme in ("https", "http") and host and parts.port != 0
    except ValueError as error:  # UnicodeError is one
        raise FetchError(f"{site!r} is no mirror ({error}): {expected}") from error
    if not fits or not re.fullmatch(r"[!-~]+", site) or re.search(r"[?#@\\]", site):
        raise FetchError(f"{site!r} is no mirror: {expected}")
    return site.rstrip("/") + place


def download(url: str, part: Path, *, most: int, checked: bool, progress: Progress | None = None) -> None:
    """Bring the whole of a file into `part`, going on with what an earlier call left there of the same file.

    Args:
        url: As `address` makes it.
        part: Where the bytes go. The server's mark of the file (its ETag) is kept beside it, so that the rest of
            another file is never put behind it.
        most: How many bytes may come; a server that has more is refused.
        checked: A checksum will be compared, so that a part without a mark may be gone on with as well.
        progress: Called after each block.

    Raises:
        FetchError: The server cannot be reached, refuses, says what cannot be, or breaks off. What came stays only
            where the next call can go on with it.
    """
    mark_file = _mark_file(part)
    have = part.stat().st_size if part.exists() else 0
    mark = mark_file.read_text(encoding="ascii") if have and mark_file.exists() else ""
    if have > most or not (mark or checked):
        have = 0
    try:
        reply = _reply(url, have, mark)
    except _NoRangeError:
        reply = _reply(url, 0, "")
    with reply:
        if reply.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0
        total = _total(url, reply, have, most, part)
        if not have:
            mark = _mark(reply)
            mark_file.unlink(missing_ok=True)
            part.open("wb").close()  # first, so that the new mark never stands beside the old bytes
            if mark:
                mark_file.write_text(mark, encoding="ascii")
        try:
            _pour(url, reply, part, total, most, progress)
        except BaseException as error:
            if isinstance(error, _TooMuchError) or not (mark or checked):
                discard(part)
            raise


def discard(part: Path) -> None:
    """Remove a part and the mark that is kept beside it."""
    part.unlink(missing_ok=True)
    _mark_file(part).unlink(missing_ok=True)


def keep(part: Path, target: Path) -> None:
    """Give what a part holds its name."""
    part.replace(target)
    _mark_file(part).unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """A file's SHA-256, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _mark_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


class _NoRangeError(FetchError):
    """The server has not the rest of this very file: what is there is all of it, or more, or of another."""


class _TooMuchError(FetchError):
    """More bytes come than the file has."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https, and from https to https alone."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise FetchError(f"{req.full_url} leads to {newurl[:200]}, which is not fetched. Name another --mirror")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _reply(url: str, begin: int, mark: str) -> http.client.HTTPResponse:
    """The server's answer: the file from byte `begin` on (206), or all of it (200). Raises FetchError."""
    headers = {"User-Agent": _USER_AGENT}
    if begin:
        headers["Range"] = f"bytes={begin}-"
        if mark:
            headers["If-Range"] = mark
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310  `address` checks it
        reply: http.client.HTTPResponse = urllib.request.build_opener(_Redirects()).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if begin and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # all is there, or more
            raise _NoRangeError(str(error)) from error
        raise FetchError(f"{url} cannot be had: {error.code} {error.reason}. {_NETWORK}") from error
    except urllib.error.URLError as error:
        raise FetchError(f"{url} cannot be reached: {error.reason}. {_NETWORK}") from error
    except (http.client.HTTPException, OSError, ValueError) as error:  # ValueError: where a redirect leads
        raise FetchError(f"{url} cannot be reached: {error}. {_NETWORK}") from error
    if reply.status == http.HTTPStatus.OK:
        return reply
    if begin and reply.status == http.HTTPStatus.PARTIAL_CONTENT:
        comes = reply.headers.get("Content-Range", "")
        if re.match(rf"bytes {begin}-[0-9]", comes) and (not mark or _mark(reply) in ("", mark)):
            return reply
        reply.close()
        raise _NoRangeError(f"{url} was asked for what is from byte {begin} on, and gives {comes!r}")
    reply.close()
    raise FetchError(f"{url} cannot be had: it answers with {reply.status} {reply.reason}. {_NETWORK}")


def _mark(reply: http.client.HTTPResponse) -> str:
    """The ETag, or "" for none and for a weak one (W/"..."), which stands for other bytes as well."""
    mark = reply.headers.get("ETag", "")
    return mark if re.fullmatch(r'"[!#-~]{1,200}"', mark) else ""


def _total(url: str, reply: http.client.HTTPResponse, have: int, most: int, part: Path) -> int | None:
    """How many bytes there will be, where the server tells. Raises FetchError for what cannot be, or is too much."""
    told = {value.strip() for value in reply.headers.get_all("Content-Length", [])}
    if not told or reply.headers.get("Transfer-Encoding"):
        return None
    if len(told) > 1 or not re.fullmatch("[0-9]{1,20}", text := told.pop()):
        raise FetchError(f"{url} gives no number of bytes as its Content-Length. Fetch again, or from another --mirror")
    coming = int(text)
    free = shutil.disk_usage(part.parent).free
    if free < coming:
        raise FetchError(f"{url} needs {coming:,} bytes, and {part.parent} has {free:,} left")
    if have + coming > most:
        raise _TooMuchError(_too_much(url, f"has {have + coming:,} bytes", most))
    return have + coming


def _pour(
    url: str, reply: http.client.HTTPResponse, part: Path, total: int | None, most: int, progress: Progress | None
) -> None:
    """Append the answer to the part, block by block."""
    with part.open("ab") as file:
        have = file.tell()
        for block in _blocks(reply, url):
            have += len(block)
            if have > most:
                raise _TooMuchError(_too_much(url, "does not end", most))
            file.write(block)
            if progress is not None:
                progress(have, total)
    if total is not None and have != total:
        raise FetchError(f"{url} broke off after {have:,} of {total:,} bytes: run the same command again")


def _blocks(reply: http.client.HTTPResponse, url: str) -> Iterator[memoryview]:
    """What comes, in a buffer that is used again: `read` asks for as much memory as a broken chunk's head tells."""
    buffer = memoryview(bytearray(BLOCK))
    try:
        while count := reply.readinto(buffer):
            yield buffer[:count]
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise FetchError(f"{url} broke off ({error}): run the same command again. {_NETWORK}") from error


def _too_much(url: str, what: str, most: int) -> str:
    return f"{url} {what}, and what is asked for has {most:,} at most: it is another file. Name another --mirror"
