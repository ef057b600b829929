"""What loading a node pack changes in a process that has ComfyUI: run by test_import_purity.py.

    python import_probe.py PATH_TO_COMFYUI PATH_TO_PACK

prints a JSON list of the names that are another object than before, or were not there.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from devtools.inprocess import enter_comfy, load_pack

_MISSING = object()


def snapshot(comfy: Path) -> dict[str, object]:
    """Everything to compare by identity, held so that no address is used again."""
    seen: dict[str, object] = {}
    for name, module in list(sys.modules.items()):
        seen[f"sys.modules[{name!r}]"] = module
        file = getattr(module, "__file__", None) or ""
        if isinstance(module, ModuleType) and (file.startswith(f"{comfy}{os.sep}") or name.startswith("torch.nn")):
            seen.update(_callables(name, module))
    seen.update((f"builtins.{name}", value) for name, value in vars(builtins).items())
    seen.update((f"sys.{name}", getattr(sys, name)) for name in ("excepthook", "displayhook"))
    return seen


def _callables(name: str, module: ModuleType) -> Iterator[tuple[str, object]]:
    for attribute, value in list(vars(module).items()):
        if callable(value):
            yield f"{name}.{attribute}", value
        if isinstance(value, type) and value.__module__ == name:
            for member, inside in list(vars(value).items()):
                if callable(inside) or isinstance(inside, staticmethod | classmethod | property):
                    yield f"{name}.{attribute}.{member}", inside


def changes(comfy: Path, pack: Path) -> list[str]:
    """Load the pack and name what changed."""
    nodes = enter_comfy(comfy)
    lists = ("path", "meta_path", "path_hooks")
    plain = {name: list(getattr(sys, name)) for name in lists} | {"environ": dict(os.environ)}
    before = snapshot(comfy)
    load_pack(nodes, pack)
    after = snapshot(comfy)
    plain_after = {name: list(getattr(sys, name)) for name in lists} | {"environ": dict(os.environ)}
    found = [name for name in plain if plain[name] != plain_after[name]]
    found += [name for name, value in before.items() if after.get(name, _MISSING) is not value]
    return found


if __name__ == "__main__":
    print(json.dumps(changes(Path(sys.argv[1]), Path(sys.argv[2]))))
