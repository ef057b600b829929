"""Loading the pack changes nothing of the host's: no path, no environment variable, no function."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ENTRY = """
async def comfy_entrypoint():
    from comfy_api.latest import ComfyExtension

    class Empty(ComfyExtension):
        async def get_node_list(self):
            return []

    return Empty()
"""
MEDDLING = {
    "path": "import sys; sys.path.append('somewhere')",
    "environ": "import os; os.environ['SOMETHING'] = '1'",
    "comfy.utils.load_torch_file": "import comfy.utils; comfy.utils.load_torch_file = lambda path: {}",
    "comfy.model_base.BaseModel.apply_model": "import comfy.model_base as m; m.BaseModel.apply_model = lambda *a: None",
    "torch.nn.functional.softmax": "import torch.nn.functional as F; F.softmax = F.relu",
}


def changes(comfy: Path, pack: Path) -> list[str]:
    """What loading `pack` changes, seen in a fresh process."""
    probe = Path(__file__).with_name("import_probe.py")
    command = [sys.executable, str(probe), str(comfy), str(pack)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_importing_the_pack_changes_nothing(comfy: Path, root: Path) -> None:
    assert changes(comfy, root) == []


@pytest.mark.slow
def test_the_probe_notices_meddling(comfy: Path, tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("\n".join([*MEDDLING.values(), ENTRY]))
    assert set(changes(comfy, tmp_path)) >= set(MEDDLING)
