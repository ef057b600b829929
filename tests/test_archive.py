"""What the installed archive says to its users: each command, page and link that it quotes is in it."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.archive import archive_files

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / ".git").exists():
    pytest.skip("not a git checkout, so what the archive holds is not known", allow_module_level=True)
ARCHIVE = frozenset(archive_files(ROOT))
FOLDERS = frozenset(folder.as_posix() for name in ARCHIVE for folder in Path(name).parents)
ELSEWHERE = re.compile(r"^(#+) .*\(in the repository\)\n(?:(?!^#{1,2} ).*\n?)*", re.MULTILINE)
"""Sections of a page whose heading says that the archive has not what they tell of."""

LINK = re.compile(r"\]\(([^)\s]+)\)|\bsrc=\"([^\"]+)\"")
PYTHON = re.compile(r"\bpython[\w.]*(?:\.exe)?\s+(?:-\w\s+)*?(-m [\w.]+|[\w./\\-]+\.py)\b")
FILE = re.compile(
    r"(?<![\w/.:@-])(?:[\w-]+/)*[\w-]+\.(?:md|toml)\b|\b(?:tests|training|devtools)/[\w/]+\.py\b|\bdev\.py\b"
)
BARE_PIP = re.compile(r"(?<!-m )\bpip install")
RUNS = frozenset({"-m pip", "-m venv"})
"""Modules that every Python finds. One of the pack's own is not found by the portable build's: it is run by path."""

TEXTS = sorted(name for name in ARCHIVE if Path(name).suffix in {".md", ".py", ".json", ".js", ".mjs", ".txt"})


def texts_of(name: str) -> Iterator[str]:
    """A page without its sections of the repository; all texts of a JSON file; a source file as it is."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".md"):
        yield ELSEWHERE.sub("", text)
    elif name.endswith(".json"):
        yield from _strings(json.loads(text))
    else:
        yield text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inside in value.values() if isinstance(value, dict) else value:
            yield from _strings(inside)


def wrong_in(text: str, folder: str = "") -> list[str]:
    """What a text of the archive quotes that its reader cannot run or open."""
    wrong = [f"{found[0]!r}: not found there" for found in PYTHON.finditer(text) if not _runs(found[1])]
    wrong += [f"{found!r}: not in the archive" for found in FILE.findall(text) if not _there(found, folder)]
    if BARE_PIP.search(text):
        wrong.append("'pip install': of which Python? `python -m pip install`")
    wrong += [f"{line!r}: PowerShell 5.1 has no &&" for line in re.findall(r"`[^`\n]*\w[^`\n]* && [^`\n]*`", text)]
    return wrong


def _runs(what: str) -> bool:
    return what in RUNS or what in ARCHIVE


def _there(path: str, folder: str) -> bool:
    return any(posixpath.normpath(posixpath.join(base, path)) in ARCHIVE for base in ("", folder))


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_file_of_the_archive_quotes_is_in_it(name: str) -> None:
    folder = posixpath.dirname(name)
    assert [wrong for text in texts_of(name) for wrong in wrong_in(text, folder)] == []


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".md")])
def test_links_of_a_page_lead_into_the_archive(name: str) -> None:
    folder = posixpath.dirname(name)
    links = [one or other for text in texts_of(name) for one, other in LINK.findall(text)]
    paths = [link.partition("#")[0] for link in links if not re.match("https?://", link)]
    targets = {path: posixpath.normpath(posixpath.join(folder, path)) for path in paths if path}
    assert [path for path, target in targets.items() if target not in ARCHIVE | FOLDERS] == []


@pytest.mark.parametrize(
    "planted",
    [
        "train it with `python -m training mini`",
        "run `python3 dev.py demo`",
        "`python_embeded\\python.exe -s -m cnc_core.perception list`",
        "see docs/training.md",
        "install it with `pip install timm`",
        "`cd folder && python cnc.py list`",
    ],
)
def test_a_planted_quote_is_found(planted: str) -> None:
    assert wrong_in(planted) != []


def test_what_is_right_is_left_alone() -> None:
    right = "`python cnc.py fetch isnet`, `python.exe -s -m pip install timm`, see docs/install.md"
    assert wrong_in(right) == []


def test_a_section_of_the_repository_ends_with_the_next_one() -> None:
    page = "# A\nx\n## Two (in the repository)\ny\n### More\nz\n## Three\nw\n"
    assert ELSEWHERE.sub("", page) == "# A\nx\n## Three\nw\n"
