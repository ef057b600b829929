"""LaMa through spandrel: every file that people have, any size, and files that are something else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cnc_core.perception import PerceptionError, inpaint, load_inpainter
from cnc_core.perception.lama import load_spandrel
from cnc_core.perception.torchscript import torchscript_weights

from . import lama_files


@pytest.fixture(scope="module")
def lama() -> Any:
    return lama_files.make_lama()


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lama_files.write_torchscript, "big-lama.pt"),
        (lama_files.write_safetensors, "big-lama.safetensors"),
        (lama_files.write_checkpoint, "best.ckpt"),
    ],
)
def test_each_file_fills_as_spandrels_own_model_does(
    lama: Any, tmp_path: Path, write: Callable[[Any, Path], Path], name: str
) -> None:
    import spandrel

    path = write(lama, tmp_path / name)
    painter = load_inpainter(name, [tmp_path])
    path.unlink()
    own = spandrel.ModelLoader().load_from_state_dict(dict(lama.state_dict())).eval()
    for height, width in ((40, 64), (37, 51), (9, 23)):
        image = torch.rand(1, height, width, 3)
        hole = torch.zeros(1, height, width)
        hole[:, 2:7, 5:18] = 1
        with torch.no_grad():
            expected = own((image * (1 - hole[..., None])).movedim(-1, 1), hole[:, None]).movedim(1, -1)
        assert expected[hole > 0].std() > 0.01
        filled = inpaint(painter, image, hole, dilation=0)
        assert torch.allclose(filled[hole > 0], expected[hole > 0], atol=1e-6)
        assert torch.equal(filled[hole == 0], image[hole == 0])


def test_big_pictures_are_filled_at_the_working_size(lama: Any, tmp_path: Path) -> None:
    path = lama_files.write_safetensors(lama, tmp_path / "lama.safetensors")
    painter = load_spandrel(path)
    path.unlink()
    painter.max_side = 64
    image = torch.rand(2, 150, 90, 3)
    hole = torch.zeros(2, 150, 90)
    hole[0, 40:60, 20:50] = 1
    assert painter.prepare(image, hole).shape == (2, 4, 64, 40)
    filled = inpaint(painter, image, hole, dilation=0)
    assert torch.equal(filled[hole == 0], image[hole == 0])
    assert not torch.equal(filled[hole > 0], image[hole > 0])


def test_no_code_of_a_torchscript_program_runs(tmp_path: Path) -> None:
    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Conv2d(3, 4, 3, stride=2)
            self.register_buffer("count", torch.arange(5))

        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            return self.inner(picture)

    program = Program()
    torch.jit.script(program).save(tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "broken.pt", "w") as broken:
        for name in whole.namelist():
            # Code that does not even compile: whoever ran it would fail.
            broken.writestr(name, b"no code at all (" if "/code/" in name else whole.read(name))
    with pytest.raises(RuntimeError):
        torch.jit.load(tmp_path / "broken.pt")
    found = torchscript_weights(tmp_path / "broken.pt")
    assert found.keys() == program.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in program.state_dict().items())


class Opened:
    """A pickle that would run `print`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


@pytest.mark.parametrize("name", ["wrong.safetensors", "wrong.pth"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cond_stage_model.transformer.x", "model.diffusion_model.input_blocks.0.0.weight"], "Stable Diffusion 1.5"),
        (["encoder.weight"], "something unknown"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, name: str, names: list[str], message: str) -> None:
    state = {key: torch.rand(2, 2) for key in names}
    if name.endswith(".pth"):
        torch.save(state, tmp_path / name)
    else:
        save_file(state, tmp_path / name)
    with pytest.raises(PerceptionError, match=rf"{name} is .*{message}.*expected an inpainting model.*big-lama"):
        load_inpainter(name, [tmp_path])


def test_an_upscaler_is_named(tmp_path: Path) -> None:
    lama_files.complete_torchvision()
    from spandrel.architectures.SPAN import SPAN

    model = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2)
    torch.save(model.state_dict(), tmp_path / "2x.pth")
    with pytest.raises(PerceptionError, match=r"2x\.pth is a SPAN model, which does not inpaint \(SR\)"):
        load_inpainter("2x.pth", [tmp_path])


def test_damaged_and_dangerous_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"model.model.1.bn_l.running_mean": torch.rand(64)}, tmp_path / "part.safetensors")
    with pytest.raises(PerceptionError, match=r"part\.safetensors cannot be loaded.*expected an inpainting model"):
        load_inpainter("part.safetensors", [tmp_path])
    whole = (tmp_path / "part.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-40])
    with pytest.raises(PerceptionError, match=r"cut\.safetensors is a safetensors file cut short"):
        load_inpainter("cut.safetensors", [tmp_path])
    torch.save({"weights": Opened()}, tmp_path / "code.pth")
    with pytest.raises(PerceptionError, match=r"code\.pth is a pickle with code in it"):
        load_inpainter("code.pth", [tmp_path])
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "other.pt")
    with pytest.raises(PerceptionError, match=r"other\.pt is something unknown, of 2 tensors \(weight, bias\)"):
        load_inpainter("other.pt", [tmp_path])
    assert "executed" not in capsys.readouterr().out


def test_without_spandrel_the_error_says_how_to_install_it(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "big-lama.safetensors"
    save_file({"a": torch.rand(2)}, path)
    script = (
        "import sys; sys.modules['spandrel'] = None\n"
        "from pathlib import Path\n"
        "from cnc_core.perception.lama import load_spandrel\n"
        f"load_spandrel(Path({str(path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert "PerceptionError: big-lama.safetensors is read by spandrel" in done.stderr
    assert f"{sys.executable} -m pip install spandrel" in done.stderr
