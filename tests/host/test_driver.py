"""The server driver itself, with the host's own nodes: what ran, what was cached, what went wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from devtools.server import Server


def saved(colour: int, prefix: str = "driver") -> dict[str, dict[str, Any]]:
    """A workflow that paints a picture, inverts it and saves it."""
    size = {"width": 32, "height": 16, "batch_size": 2}
    return {
        "paint": {"class_type": "EmptyImage", "inputs": {**size, "color": colour}},
        "invert": {"class_type": "ImageInvert", "inputs": {"image": ["paint", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["invert", 0], "filename_prefix": prefix}},
    }


def test_only_what_changed_is_executed_again(server: Server) -> None:
    first = server.run(saved(1))
    assert first.error is None
    assert first.executed == ["paint", "invert", "save"]
    again = server.run(saved(1, prefix="renamed"))
    assert again.executed == ["save"]
    assert again.cached == ["paint", "invert"]
    assert server.run(saved(2)).executed == ["paint", "invert", "save"]


def test_pictures_come_back(server: Server) -> None:
    pictures = server.run(saved(3)).images("save")
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_a_wrong_value_is_the_text_that_a_user_sees(server: Server) -> None:
    workflow = saved(4)
    workflow["paint"]["inputs"]["width"] = -1
    run = server.run(workflow)
    assert run.executed == []
    assert run.error is not None and "EmptyImage paint: Value -1 smaller than min of 1: width" in run.error


def test_an_exception_is_the_text_that_a_user_sees(server: Server) -> None:
    folder = server.models / "checkpoints"
    folder.mkdir(exist_ok=True)
    (folder / "broken.safetensors").write_bytes(b"not weights at all")
    run = server.run(
        {
            "load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "broken.safetensors"}},
            "encode": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["load", 1], "text": "a"}},
            "look": {"class_type": "PreviewAny", "inputs": {"source": ["encode", 0]}},
        }
    )
    assert run.executed == ["load"]
    assert run.error is not None and "header too large" in run.error


@pytest.mark.slow
def test_two_servers_run_side_by_side(server: Server) -> None:
    with Server(server.comfy, pack=None) as other:
        assert other.run(saved(6)).executed == ["paint", "invert", "save"]
        assert not any(name.startswith("CnC_") for name in other.object_info())
    assert not other.base.exists()
    assert server.run(saved(6)).error is None


@pytest.mark.slow
def test_a_server_ends_with_the_process_that_started_it(comfy: Path, root: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from devtools.server import Server\nfrom pathlib import Path\nimport os\n"
        f"server = Server(Path({str(comfy)!r}), pack=None).__enter__()\n"
        "print(server.url, server.base, flush=True)\nos._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=400)
    url, base = done.stdout.split()
    deadline = time.monotonic() + 120
    while _answers(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    shutil.rmtree(base)
    assert not _answers(url)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/system_stats", timeout=5).close()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True
