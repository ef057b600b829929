"""Who may import whom: the table of rooms in docs/design.md, read from the source files.

An import of our own by a relative path is written "./cnc_core.attention"; "nodes" without the dot is
ComfyUI's module. What stands under `if TYPE_CHECKING:` is only for type checkers and not looked at.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

COMFY = frozenset({"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "node_helpers", "nodes"})
LAZY = frozenset({"cv2", "onnxruntime", "spandrel", "timm", "transformers"})
NETWORK = frozenset({"aiohttp", "ftplib", "http", "huggingface_hub", "requests", "socket", "urllib.request"})
TRAINING = frozenset(
    {"accelerate", "diffusers", "filelock", "PIL", "pyarrow", "ray", "safetensors", "tensorboard", "tomli"}
    | {"bitsandbytes", "lpips", "torch_fidelity", "torchmetrics", "tqdm", "webdataset"}
)


@dataclass(frozen=True)
class Import:
    """One imported module, where it is written, and whether importing the file runs it."""

    module: str
    place: str
    at_import: bool

    def within(self, packages: frozenset[str]) -> bool:
        return any(self.module == package or self.module.startswith(f"{package}.") for package in packages)


@dataclass(frozen=True)
class Room:
    """Files (globs) that may import, beside the standard library, `allowed` but for `never`."""

    name: str
    files: tuple[str, ...]
    allowed: frozenset[str]
    never: frozenset[str] = frozenset()


ROOMS = (
    Room("the entry point", ("__init__.py",), frozenset({"./nodes"})),
    Room("the pack's commands", ("cnc.py",), frozenset({"cnc_core"})),
    Room("nodes", ("nodes/*.py",), frozenset({"./nodes", "./cnc_core", "comfy_api", "torch"})),
    Room(
        "nodes/host",
        ("nodes/host/**/*.py",),
        frozenset({"./nodes.host", "./cnc_core", "torch", "numpy"}) | COMFY,
    ),
    Room(
        "cnc_core",
        ("cnc_core/*.py",),
        frozenset({"./cnc_core", "torch", "numpy", "safetensors"}),
        never=frozenset({"./cnc_core.perception"}),
    ),
    Room(
        "cnc_core/perception",
        ("cnc_core/perception/**/*.py",),
        frozenset({"./cnc_core", "torch", "numpy", "safetensors"}) | LAZY,
    ),
    Room(
        "training",
        ("training/**/*.py",),
        frozenset({"./training", "training", "cnc_core", "torch", "numpy", "cv2", "transformers"}) | TRAINING,
    ),
    Room("dev.py", ("dev.py",), frozenset({"devtools"})),
    Room(
        "devtools before anything is installed",
        tuple(f"devtools/{name}.py" for name in ("__init__", "environment", "hosts", "link", "rooms")),
        frozenset({"./devtools"}),
    ),
    Room(
        "devtools inside the host's Python",
        ("devtools/*.py",),
        frozenset({"./devtools", "aiohttp", "torch", "torchvision", "PIL"}),
    ),
    Room(
        "devtools that draw the templates and run them",
        ("devtools/templates/*.py",),
        frozenset({"./devtools", "training", "torch", "PIL", "playwright", "safetensors"}),
    ),
    Room(
        "the pack that stands in for what templates load",
        ("devtools/templates/stand_in_pack/*.py",),
        frozenset({"torch"}) | COMFY,
    ),
    Room(
        "devtools that make the documentation",
        ("devtools/documentation/*.py",),
        frozenset({"./devtools", "cnc_core", "training", "PIL", "playwright"}),
    ),
)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_imports_only_what_the_design_lets_it(root: Path, room: Room) -> None:
    imports = list(_imports(root, room.files))
    standard = frozenset(sys.stdlib_module_names)
    wrong = [
        f"{found.place}: {found.module}"
        for found in imports
        if not found.within(room.allowed | standard) or found.within(room.never)
    ]
    assert not wrong, f"{room.name} may not import:\n" + "\n".join(wrong)


def test_optional_packages_are_imported_where_they_are_used(root: Path) -> None:
    early = [
        f"{found.place}: {found.module}"
        for found in _imports(root, ("__init__.py", "nodes/**/*.py", "cnc_core/**/*.py"))
        if found.at_import and found.within(LAZY)
    ]
    assert not early, "the pack has to load without these:\n" + "\n".join(early)


def test_one_module_touches_the_network(root: Path) -> None:
    reaching = [
        f"{found.place}: {found.module}"
        for found in _imports(root, ("__init__.py", "nodes/**/*.py", "cnc_core/**/*.py", "training/**/*.py"))
        if found.within(NETWORK) and not found.place.startswith("cnc_core/perception/download.py")
    ]
    assert not reaching, "only cnc_core/perception/download.py may reach out:\n" + "\n".join(reaching)


def _imports(root: Path, globs: tuple[str, ...]) -> Iterator[Import]:
    for path in sorted({path for glob in globs for path in root.glob(glob)}):
        package = path.relative_to(root).parent.parts
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for node, at_import in _walk(tree, at_import=True):
            place = f"{path.relative_to(root).as_posix()}:{node.lineno}"
            for module in _modules(node, package):
                yield Import(module, place, at_import)


def _walk(node: ast.AST, at_import: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement below `node`, and whether it runs when the file is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_import
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, at_import and not function)


def _modules(node: ast.Import | ast.ImportFrom, package: tuple[str, ...]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level == 0:
        return [node.module or ""]
    if node.level - 1 > len(package):
        return ["(above the repository)"]
    base = package[: len(package) - (node.level - 1)]
    if node.module:
        return ["./" + ".".join((*base, node.module))]
    return ["./" + ".".join((*base, alias.name)) for alias in node.names]
