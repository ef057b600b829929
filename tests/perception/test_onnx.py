"""ONNX models as networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cnc_core.perception import PerceptionError
from cnc_core.perception.onnx import OnnxNetwork

from . import onnx_files


@pytest.mark.parametrize("batch", ["batch", 1])
def test_a_batch_goes_through_whatever_batch_the_file_was_exported_for(tmp_path: Path, batch: int | str) -> None:
    network = OnnxNetwork(onnx_files.mean_of_channels(tmp_path / "mean.onnx", batch=batch))
    pictures = torch.rand(3, 3, 5, 7)
    assert torch.allclose(network(pictures), pictures.mean(dim=1, keepdim=True), atol=1e-6)


def test_a_half_precision_model_gives_float32(tmp_path: Path) -> None:
    path = onnx_files.mean_of_channels(tmp_path / "half.onnx", element=onnx_files.TensorProto.FLOAT16)
    pictures = torch.rand(1, 3, 4, 4)
    mean = OnnxNetwork(path)(pictures)
    assert mean.dtype == torch.float32
    assert torch.allclose(mean, pictures.mean(dim=1, keepdim=True), atol=1e-3)


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"no model at all")
    with pytest.raises(PerceptionError, match=r"weights\.onnx is no ONNX model"):
        OnnxNetwork(path)


def test_without_onnxruntime_the_error_says_how_to_install_it(root: Path, tmp_path: Path) -> None:
    path = onnx_files.mean_of_channels(tmp_path / "mean.onnx")
    script = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from pathlib import Path\n"
        "from cnc_core.perception.onnx import OnnxNetwork\n"
        f"OnnxNetwork(Path({str(path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert "PerceptionError: mean.onnx is an ONNX model" in done.stderr
    assert f"{sys.executable} -m pip install onnxruntime" in done.stderr
