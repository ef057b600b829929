"""Documents for people: what they link to is there, and the registry's pictures are as it wants them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "training").rglob("*.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHOWN_KB = 250


def anchors(document: Path) -> set[str]:
    """The names that a document's headings can be linked to by."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    lost = []
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if re.match("https?://", link):
            continue
        file, _, anchor = link.partition("#")
        path = (document.parent / file) if file else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            lost.append(link)
    assert lost == []


def test_pictures_of_the_documents_are_small_and_shown() -> None:
    shown = {
        (document.parent / link).resolve()
        for document in DOCUMENTS
        for link in LINK.findall(document.read_text(encoding="utf-8"))
    }
    for_registry = {ROOT / "docs" / "icon.png", ROOT / "docs" / "banner.jpg"}
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".jpg", ".png")]
    assert pictures and [path for path in pictures if path not in shown | for_registry] == []
    assert [path for path in pictures if path.stat().st_size > SHOWN_KB * 1024] == []


def test_the_registry_gets_an_icon_and_a_banner() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    comfy = project["tool"]["comfy"]
    with Image.open(ROOT / comfy["Icon"]) as icon, Image.open(ROOT / comfy["Banner"]) as banner:
        assert icon.width == icon.height <= 400
        assert banner.width * 9 == banner.height * 21


def test_the_changelog_and_the_citation_know_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert any(heading == "Unreleased" or heading.startswith(f"{version} ") for heading in headings)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
