"""ComfyUI and the pack inside this process, loaded as the server loads them.

For tests and benchmarks that call the host's classes directly. Two steps, so that what importing
the pack changes can be seen between them:

    nodes = enter_comfy(comfy, ["--cpu"])
    pack = load_pack(nodes)
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from . import rooms
from .launch import complete_torchvision


@dataclass(frozen=True)
class LoadedPack:
    """The pack as the host holds it."""

    module: ModuleType

    @property
    def core(self) -> ModuleType:
        """Its cnc_core, a second import of the same files as the plain `cnc_core`.

        Take the classes that meet the pack's own from here, or isinstance fails.
        """
        return self.part("cnc_core")

    def part(self, name: str) -> ModuleType:
        """The pack's module `name`, e.g. "nodes.host.control"."""
        return importlib.import_module(f"{self.module.__name__}.{name}")


def enter_comfy(comfy: Path, arguments: Sequence[str] = ("--cpu",)) -> ModuleType:
    """Import ComfyUI as its main.py would with `arguments`; return its `nodes` module.

    The process keeps ComfyUI's folder on sys.path and our root off it. ComfyUI reads its options
    once: a second call, for the same folder, changes nothing.
    """
    rooms.install()
    if str(comfy) not in sys.path:
        sys.path.insert(0, str(comfy))
    complete_torchvision()
    options = importlib.import_module("comfy.options")
    options.enable_args_parsing()
    argv, sys.argv = sys.argv, ["main.py", *arguments]
    try:
        importlib.import_module("comfy.cli_args")
    finally:
        sys.argv = argv
    nodes = importlib.import_module("nodes")
    if Path(str(nodes.__file__)).resolve() != (comfy / "nodes.py").resolve():
        raise RuntimeError(f"`nodes` is {nodes.__file__}, not ComfyUI's: is our root on sys.path?")
    return nodes


def load_pack(nodes: ModuleType, pack: Path = rooms.ROOT) -> LoadedPack:
    """Load the pack by path with the host's own loader, which registers its nodes in `nodes`.

    Raises ImportError with what the host logged if it refuses the pack.
    """
    logged = _Recorder()
    logging.getLogger().addHandler(logged)
    try:
        loaded = asyncio.run(nodes.load_custom_node(str(pack), set(nodes.NODE_CLASS_MAPPINGS)))
    finally:
        logging.getLogger().removeHandler(logged)
    if not loaded:
        raise ImportError("\n".join(["ComfyUI refused the pack:", *logged.lines]))
    return LoadedPack(sys.modules[str(pack).replace(".", "_x_")])


def newer_nodes(pack: LoadedPack) -> dict[str, dict[str, Any]]:
    """What a server of a newer host tells of the nodes that the pack has for those alone, on any host."""
    nodes = [node for family in pack.part("nodes").NEWER for node in family.NODES]
    return {node.define_schema().node_id: json.loads(json.dumps(node.GET_NODE_INFO_V1())) for node in nodes}


class _Recorder(logging.Handler):
    """Keeps the text of warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
