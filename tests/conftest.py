"""What all tests share.

A pytest process runs both plain tests, which import cnc_core and training, and host tests, which
import ComfyUI. ComfyUI has a top-level module `nodes` as we do, so the repository's
root is taken off sys.path here and the packages are found by name instead (devtools/rooms.py).
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from devtools import rooms  # noqa: E402

rooms.install()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let each test draw the same numbers, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Undo what a test's configuration makes of torch's threads in this process."""
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of golden values and other test data."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def comfy() -> Path:
    """The ComfyUI to test on: `dev.py test --comfy PATH`, or the one that dev.py makes."""
    folder = Path(os.environ.get("CNC_COMFY") or ROOT / ".host" / "ComfyUI")
    if not (folder / "main.py").is_file():
        pytest.fail(f"no ComfyUI in {folder}: `python3 dev.py test` makes it", pytrace=False)
    return folder
