"""Write `locales/`, which ComfyUI serves to the front end: what the interface says in each language.

    python -m devtools.locales PATH_TO_COMFYUI

English comes from the nodes' schemas, as a real server tells them (those of nodes that its host is too old for as the
nodes do), and from the few words of the scripts below.
The other languages are translations of these English texts, in devtools/translations: {English: translation}, each
text once, however many nodes say it. A text that changes in a schema has no translation then, which is an error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .environment import ROOT
from .inprocess import enter_comfy, load_pack, newer_nodes
from .server import Server

TRANSLATIONS = Path(__file__).with_name("translations")
LOCALES = ROOT / "locales"
LANGUAGES = ("zh", "ja", "ko")

SETTINGS = {
    "ComposeAndConquer_RunOnRelease": {
        "name": "Run when a \u03bb slider or the pad is let go",
        "tooltip": "Queues the workflow once when a \u03bb has changed. Only the guidance and the sampler run again.",
    },
}
"""What web/ says in the settings, by id; a dot in an id is written as an underscore."""

COMMANDS = {
    "ComposeAndConquer_SwapLayers": {"label": "Compose and Conquer: swap layers"},
    "ComposeAndConquer_LambdaGrid": {"label": "Compose and Conquer: \u03bb grid"},
}
"""The labels of the commands of web/, by id."""

MENUS = ("Swap layers", "\u03bb grid")
"""The entries of web/ in a node's menu."""

Texts = dict[str, Any]


class UntranslatedError(ValueError):
    """Texts that a language lacks, or translations of texts that are said no more."""


def english(object_info: Mapping[str, Any]) -> dict[str, Texts]:
    """The English files of `locales/en` by name, from the nodes as a server tells them."""
    labels = [command["label"] for command in COMMANDS.values()]
    return {
        "nodeDefs": {name: _node(info) for name, info in sorted(object_info.items()) if name.startswith("CnC_")},
        "settings": SETTINGS,
        "commands": COMMANDS,
        "main": {
            "nodeCategories": {name: name for name in ("Compose and Conquer", "layers")},
            "settingsCategories": {
                "Compose and Conquer": "Compose and Conquer",
                "Lambda": "\N{GREEK SMALL LETTER LAMDA}",
                "RunOnRelease": "Run on release",
            },
            "menuLabels": {label: label for label in labels},
            "contextMenu": {entry: entry for entry in MENUS},
        },
    }


def translated(files: Mapping[str, Texts], language: str) -> dict[str, Texts]:
    """The same files in another language. Raises UntranslatedError, with the texts, where translations are amiss."""
    texts: dict[str, str] = json.loads((TRANSLATIONS / f"{language}.json").read_text(encoding="utf-8"))
    said = set(_texts(files))
    lacking, idle = said - texts.keys(), texts.keys() - said
    if lacking or idle:
        listed = [f"no translation of {text!r}" for text in sorted(lacking)]
        listed += [f"said no more: {text!r}" for text in sorted(idle)]
        raise UntranslatedError(f"devtools/translations/{language}.json: " + "; ".join(listed))
    return {name: _replaced(file, texts) for name, file in files.items()}


def made(object_info: Mapping[str, Any]) -> dict[str, str]:
    """What belongs into `locales/`: the content of each file by its path there."""
    files = english(object_info)
    languages = {"en": files, **{language: translated(files, language) for language in LANGUAGES}}
    return {
        f"{language}/{name}.json": json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for language, contents in languages.items()
        for name, content in contents.items()
    }


def _node(info: Mapping[str, Any]) -> Texts:
    inputs: Texts = {}
    for kind in ("required", "optional"):
        for name, (_, options) in info["input"].get(kind, {}).items():
            inputs[name] = {"name": options.get("display_name") or name, "tooltip": options["tooltip"]}
    outputs = {
        str(place): {"name": name, "tooltip": tooltip}
        for place, (name, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"], strict=True))
    }
    texts: Texts = {"display_name": info["display_name"], "description": info["description"]}
    return texts | ({"inputs": inputs} if inputs else {}) | {"outputs": outputs}


def _texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [text for part in content.values() for text in _texts(part)]


def _replaced(content: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(content, str):
        return texts[content]
    return {name: _replaced(part, texts) for name, part in content.items()}


def main() -> None:
    """Ask a server and write the files."""
    parser = argparse.ArgumentParser(prog="python -m devtools.locales")
    parser.add_argument("comfy", type=Path)
    comfy = parser.parse_args().comfy
    newer = newer_nodes(load_pack(enter_comfy(comfy)))
    with Server(comfy) as server:
        files = made(newer | server.object_info())
    for path, content in files.items():
        (LOCALES / path).parent.mkdir(parents=True, exist_ok=True)
        (LOCALES / path).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
