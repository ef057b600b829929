"""A real server for the tests that post workflows, and ComfyUI in-process for those that call it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devtools.inprocess import LoadedPack, enter_comfy, load_pack, newer_nodes
from devtools.server import Server


@pytest.fixture(scope="session")
def server(comfy: Path) -> Iterator[Server]:
    """One server for all tests, on the CPU, with this pack alone and folders of its own."""
    with Server(comfy) as running:
        yield running


@dataclass(frozen=True)
class Host:
    """nodes: ComfyUI's own `nodes` module. pack, core: this pack as loaded by it, and its cnc_core."""

    nodes: ModuleType
    pack: LoadedPack
    core: ModuleType


@pytest.fixture(scope="session")
def host(comfy: Path) -> Host:
    """ComfyUI on the CPU in this process with the pack loaded. Import comfy inside the test."""
    nodes = enter_comfy(comfy)
    pack = load_pack(nodes)
    return Host(nodes, pack, pack.core)


@pytest.fixture(scope="session")
def our_nodes(server: Server, host: Host) -> dict[str, dict[str, Any]]:
    """Our nodes as the front end gets them, those that this host is too old for as it would."""
    served = {name: info for name, info in server.object_info().items() if name.startswith("CnC_")}
    return newer_nodes(host.pack) | served
