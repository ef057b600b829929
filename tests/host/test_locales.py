"""What the interface says in four languages: complete, up to date with the schemas and the scripts, and served."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools import locales
from devtools.server import Server

RENEW = "python -m devtools.locales PATH_TO_COMFYUI"
UNTRANSLATED = {"Compose and Conquer", "clip", "vae", "x", "y", "z", "\u03bb"}
"""What is the same in every language, but for capitals."""

SCRIPTS = {"zh": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30ff\u4e00-\u9fff]", "ko": "[\uac00-\ud7a3]"}
"""The letters that a text in that language has at least one of."""

KEPT = re.compile(r"[\w/.-]*[\d/_]+[\w/.-]*|\b\w*[A-Z][\w-]*[A-Z]\w*|\.\w+", re.ASCII)
"""What no translation may change: numbers, files, folders, the names of models, formats and libraries."""

language = pytest.mark.parametrize("language", locales.LANGUAGES)


@pytest.fixture(scope="module")
def object_info(our_nodes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return our_nodes


def texts(content: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text with its place."""
    if isinstance(content, str):
        yield place, content
    else:
        for name, part in content.items():
            yield from texts(part, f"{place}/{name}")


def pairs(language: str) -> Iterator[tuple[str, str, str]]:
    """Every text's place, the English one and the other language's."""
    for file in sorted((locales.LOCALES / "en").glob("*.json")):
        english, other = (dict(texts(json.loads((file.parents[1] / name / file.name).read_text(encoding="utf-8"))))
                          for name in ("en", language))  # fmt: skip
        assert list(english) == list(other), f"{file.name}: other keys than in English"
        yield from ((f"{file.name}{place}", text, other[place]) for place, text in english.items())


def test_locales_are_what_the_schemas_say(object_info: dict[str, Any]) -> None:
    found = {str(path.relative_to(locales.LOCALES).as_posix()): path.read_text(encoding="utf-8")
             for path in locales.LOCALES.rglob("*.json")}  # fmt: skip
    made = locales.made(object_info)
    stale = sorted(path for path in made.keys() | found.keys() if made.get(path) != found.get(path))
    assert stale == [], f"write them again: {RENEW}"


def test_an_untranslated_text_is_told(object_info: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(object_info))
    changed["CnC_DepthMap"]["description"] = "Something else."
    with pytest.raises(locales.UntranslatedError, match=r"zh\.json.*'Something else\.'.*said no more: .The depth map"):
        locales.made(changed)


@language
def test_every_text_is_translated(language: str) -> None:
    same = {english for _, english, other in pairs(language) if english.lower() == other.lower()}
    assert same <= UNTRANSLATED
    letters = re.compile(SCRIPTS[language])
    foreign = [place for place, english, other in pairs(language)
               if english not in UNTRANSLATED and not letters.search(other)]  # fmt: skip
    assert foreign == []


@language
def test_names_and_numbers_survive(language: str) -> None:
    lost = []
    for place, english, other in pairs(language):
        if place.endswith("/name"):
            continue  # an input's id, which the interface may say in words
        words = {found.rstrip(".").removesuffix("s") for found in KEPT.findall(english)} - {""}
        lost += [f"{place}: {word}" for word in sorted(words) if word not in other]
    assert lost == []


@language
def test_choices_keep_their_values(language: str, object_info: dict[str, Any]) -> None:
    """A choice that a tooltip explains is called what the list calls it: its values are not translated."""
    other = {place: text for place, _, text in pairs(language)}
    lost = []
    for node, info in object_info.items():
        if not node.startswith("CnC_"):
            continue
        for kind in ("required", "optional"):
            for name, (_, options) in info["input"].get(kind, {}).items():
                said = options["tooltip"]
                explained = [one for one in options.get("options", ()) if re.search(rf"(^|\W){re.escape(one)}\W", said)]
                place = f"nodeDefs.json/{node}/inputs/{name}/tooltip"
                lost += [f"{place}: {choice}" for choice in explained if choice not in other[place]]
    assert lost == []


def test_nothing_is_taken_for_a_placeholder() -> None:
    """The front end's messages give these a meaning of their own: {name}, @:link and one | other."""
    every = ("en", *locales.LANGUAGES)
    marked = [place for language in every for place, _, text in pairs(language) if re.search(r"[{}@|]", text)]
    assert marked == []


def test_what_the_scripts_say_is_in_the_locales(root: Path) -> None:
    """Settings and commands of web/, by id and word for word."""
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((root / "web").glob("*js")))
    source = re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), source)
    ids = set(re.findall(r'"(ComposeAndConquer\.\w+)"', source))
    known = {name.replace("_", ".") for name in (*locales.SETTINGS, *locales.COMMANDS)}
    assert ids == known, "devtools/locales.py lists what web/ adds to settings and commands"
    said = [text for _, text in texts({**locales.SETTINGS, **locales.COMMANDS})]
    assert [text for text in (*said, *locales.MENUS) if f'"{text}"' not in source] == []


def test_the_host_serves_them(server: Server) -> None:
    served = server.get("/i18n")
    assert set(served) == {"en", *locales.LANGUAGES}
    for name, content in served.items():
        for file in ("nodeDefs", "settings", "commands"):
            expected = json.loads((locales.LOCALES / name / f"{file}.json").read_text(encoding="utf-8"))
            assert content[file] == expected, f"{name}/{file}"
        main = json.loads((locales.LOCALES / name / "main.json").read_text(encoding="utf-8"))
        assert {part: content[part] for part in main} == main


@language
def test_lambda_is_a_greek_letter(language: str) -> None:
    shown = [(place, text) for place, english, other in pairs(language) for text in (english, other)]
    assert [place for place, text in shown if re.search("lambda", text, re.IGNORECASE)] == []
    assert any("\u03bb" in text for _, text in shown)
