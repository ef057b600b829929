"""What the tests of fetching share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from . import onnx_files
from .fetch_site import Site, serve


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server of the test's own, which no setting of this machine's stands in for."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY", "HF_ENDPOINT", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serve() as serving:
        yield serving


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The empty `models` folder of a ComfyUI."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def onnx_model(tmp_path: Path) -> bytes:
    """A whole ONNX file of 2 MB."""
    node = onnx_files.helper.make_node("Add", ["input", "weights"], ["output"])
    shape: list[int | str] = [1, 500_000]
    weights = np.random.default_rng(0).random((1, 500_000), np.float32)
    kinds = {"input": (onnx_files.TensorProto.FLOAT, shape)}, {"output": (onnx_files.TensorProto.FLOAT, shape)}
    return onnx_files.write(tmp_path / "made.onnx", [node], *kinds, {"weights": weights}).read_bytes()
