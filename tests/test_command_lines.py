"""Commands that messages quote run in every shell, from any folder, with an isolated Python too."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from cnc_core import command_lines
from cnc_core.command_lines import SCRIPT, command_line, pip_install, quoted
from cnc_core.perception.weights import command

SHELLS = {
    "sh": ["-c"],
    "powershell": ["-NoProfile", "-Command"],
    "pwsh": ["-NoProfile", "-Command"],
}
"""Each shell's option that runs a line; cmd is given it as a string."""


def shells_here() -> list[str]:
    """The shells of this system that are installed."""
    names = ("cmd", "powershell", "pwsh") if sys.platform == "win32" else ("sh",)
    return [name for name in names if shutil.which(name)]


@pytest.mark.parametrize("shell", shells_here())
def test_a_command_runs_in_each_shell(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python and script in folders with spaces, brackets and an ampersand; the shell gets the line as pasted."""
    venv.create(tmp_path / "my python (1) & co")
    inside = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    monkeypatch.setattr(command_lines.sys, "executable", str(tmp_path / "my python (1) & co" / inside))
    script = tmp_path / "my pack; 2" / "told.py"
    script.parent.mkdir()
    script.write_text("import sys; print(sys.argv[1:])")
    line = command_line(str(script), "fetch", "name")
    if shell == "cmd":  # as a string: what subprocess makes of a list is not what a user pastes
        done = subprocess.run(f'cmd /d /s /c "{line}"', cwd=tmp_path, capture_output=True, text=True)
    else:
        done = subprocess.run([shell, *SHELLS[shell], line], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "['fetch', 'name']", done.stderr


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (r"C:\ComfyUI\python_embeded\python.exe", r"C:\ComfyUI\python_embeded\python.exe"),
        (r"C:\Users\An Na\python.exe", r'C:\"Users\An Na\python.exe"'),
        (r"D:\AI & co\cnc.py", r'D:\"AI & co\cnc.py"'),
        (r"\\server\the share\cnc.py", r'\\s"erver\the share\cnc.py"'),
        ("onnxruntime", "onnxruntime"),
    ],
)
def test_a_windows_path_never_begins_with_a_quote(path: str, written: str) -> None:
    assert quoted(path, windows=True) == written


@pytest.mark.parametrize("line", [command("isnet"), command("list"), pip_install("-U", "transformers")])
def test_a_quoted_command_is_one_program(line: str) -> None:
    """PowerShell 5.1 has no &&, and cmd's cd leaves the drive as it is."""
    assert line.startswith(quoted(sys.executable)) and "&&" not in line and "cd " not in line


def test_the_quoted_command_runs_in_an_installed_pack(root: Path, tmp_path: Path) -> None:
    """With a Python that searches neither the current folder nor the script's, as the portable build's."""
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "compose and conquer"
    shutil.copytree(root / "cnc_core", pack / "cnc_core")
    shutil.copy(root / SCRIPT.name, pack)
    there = tmp_path / "ComfyUI" / "models" / "inpaint" / "migan_pipeline_v2.onnx"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"something else")
    for isolated in ([], ["-I"]):
        run = [sys.executable, *isolated, str(pack / SCRIPT.name), "fetch", "migan"]
        told = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
        assert told.returncode == 1 and f"{there} is there and is not migan" in told.stderr, told.stderr
