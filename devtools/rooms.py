"""Make the repository's packages importable without its root on sys.path.

ComfyUI has a top-level module `nodes`, and so has this repository: a process that imports ComfyUI
must not have our root on sys.path, or `import nodes` depends on an order of folders. A finder that
knows exactly the packages below keeps both importable in one process. Start with

    sys.path.insert(0, str(root)); from devtools import rooms; rooms.install()
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cnc_core", "training", "devtools", "benchmarks")


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        init = ROOT / fullname / "__init__.py"
        if fullname not in PACKAGES or not init.is_file():
            return None
        return importlib.util.spec_from_file_location(fullname, init, submodule_search_locations=[str(init.parent)])


def install() -> None:
    """Find `PACKAGES` in this repository, and take its root off sys.path. Calling twice is fine."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
