"""What importing perception costs, and who may import it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

HEAVY = ("cv2", "transformers", "timm", "spandrel", "onnxruntime", "torchvision", "comfy")


def test_only_a_models_own_loader_imports_what_it_needs(root: Path) -> None:
    script = f"import sys, cnc_core.perception; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_rest_of_cnc_core_does_not_know_perception(root: Path) -> None:
    modules = list((root / "cnc_core").glob("*.py"))
    assert modules
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or "", *(alias.name for alias in node.names)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any("perception" in name.split(".") for name in names), module
