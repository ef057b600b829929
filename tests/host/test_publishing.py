"""What the registry would get: the rules it checks, and an archive that works without the rest of the repository."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from devtools import demo
from devtools.archive import archive_files
from devtools.server import Server

RULES = "S102,S307,E702"
"""What the registry's check looks for: exec, eval, several statements on a line. It warns; here they are errors."""

MOST_MB = 40

FLAGGED_MODULES = frozenset(
    {"aiohttp", "asyncio", "base64", "code", "ctypes", "dill", "ftplib", "http", "httpx", "huggingface_hub", "marshal"}
    | {"multiprocessing", "pickle", "pickletools", "pip", "requests", "runpy", "shelve", "smtplib", "socket", "ssl"}
    | {"subprocess", "telnetlib", "urllib", "urllib3", "webbrowser", "websocket", "winreg", "xmlrpc"}
)
"""What a scanner of published packs stumbles over: network, processes, pickles, hidden code."""

FLAGGED_CALLS = frozenset(
    {"__import__", "compile", "eval", "exec", "importlib.import_module", "os.popen", "os.startfile", "os.system"}
    | {"torch.load", "torch.jit.load", "torch.hub.load"}
)

REASONS = {
    "cnc_core/perception/download.py: http": "the status codes and the reply of urllib",
    "cnc_core/perception/download.py: urllib": "the command `fetch` alone; no node imports it. Files of plain "
    "addresses, of npm and of the hub: resumed, bounded in size while they come, checked. huggingface_hub would do the "
    "hub's, but writes all that a server sends before it looks at the size",
    "cnc_core/pickled.py: pickletools": "reads the opcodes of a checkpoint as text, so that no pickle is ever executed",
}
"""Where the archive has any of it, and why."""


def run(command: list[str | Path], folder: Path) -> str:
    """What the command says. Fails the test, with its words, where it fails."""
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def comfy_cli(root: Path) -> Path:
    """ComfyUI's own command line tool, in an environment of its own: it brings other versions of what we use."""
    folder = root / ".cache" / "comfy-cli"
    tool = folder / ("Scripts/comfy.exe" if sys.platform == "win32" else "bin/comfy")
    if not tool.is_file():
        run([sys.executable, "-m", "venv", "--clear", folder], root)
        python = tool.with_name("python.exe" if sys.platform == "win32" else "python")
        install = [python, "-m", "pip", "install", "--quiet", "--retries", "1", "comfy-cli>=1.5"]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"comfy-cli could not be installed: {done.stderr.strip().splitlines()[-1:]}")
    return tool


@pytest.fixture(scope="module")
def checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git knows of this repository, as it lies here, in a repository of its own: the tool packs tracked files."""
    folder = tmp_path_factory.mktemp("checkout") / "compose-and-conquer"
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, files):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((root / name).read_bytes())
    run(["git", "init", "--quiet"], folder)
    run(["git", "add", "--all", "--force"], folder)
    return folder


def test_the_rules_of_the_registry_hold(root: Path) -> None:
    """Whatever our own settings of ruff and comments in the code say."""
    rules = ["--isolated", "--ignore-noqa", "--select", RULES, "--exclude", ".host,.venv,.cache"]
    run([sys.executable, "-m", "ruff", "check", ".", "--quiet", *rules], root)


def flagged(name: str, source: str) -> set[str]:
    """What a scanner would stumble over in a file of the archive, as `file: what`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & FLAGGED_MODULES
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found |= {node.module.partition(".")[0]} & FLAGGED_MODULES
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found |= {called} & FLAGGED_CALLS
            if called.startswith(("os.exec", "os.spawn")):
                found.add(called)
    return {f"{name}: {what}" for what in found}


def test_what_a_scanner_stumbles_over_has_a_reason(root: Path) -> None:
    """No more than what has a reason, and no reason for what is not there."""
    sources = [name for name in archive_files(root) if name.endswith(".py")]
    found = {line for name in sources for line in flagged(name, (root / name).read_text(encoding="utf-8"))}
    assert found == set(REASONS)


@pytest.mark.parametrize(
    ("planted", "what"),
    [
        ("def f():\n    import socket", "socket"),
        ("from urllib.request import urlopen", "urllib"),
        ("import os\nos.system('x')", "os.system"),
        ("import os\nos.execv('x', [])", "os.execv"),
        ("eval('1')", "eval"),
        ("import torch\ntorch.load('x')", "torch.load"),
    ],
)
def test_a_planted_line_is_found(planted: str, what: str) -> None:
    assert flagged("file.py", planted) == {f"file.py: {what}"}


@pytest.mark.slow
def test_comfy_cli_finds_nothing_to_say(comfy_cli: Path, checkout: Path) -> None:
    said = run([comfy_cli, "--skip-prompt", "node", "validate"], checkout)
    assert "All validation checks passed" in said and "warnings" not in said, said


@pytest.mark.slow
def test_the_archive_is_a_whole_pack(comfy_cli: Path, checkout: Path, comfy: Path, tmp_path: Path) -> None:
    """Unpacked where users have it, it composes the demo's first scene and has its help, words and pictures."""
    run([comfy_cli, "--skip-prompt", "node", "pack"], checkout)
    archive = checkout / "node.zip"
    assert archive.stat().st_size < MOST_MB * 2**20
    pack = tmp_path / "compose-and-conquer"
    with zipfile.ZipFile(archive) as packed:
        assert {name for name in packed.namelist() if not name.endswith("/")} == set(archive_files(checkout))
        packed.extractall(pack)
    assert not {"tests", "training", "devtools", "benchmarks", ".ci", ".github"} & {
        path.name for path in pack.iterdir()
    }
    assert {"README.md", "LICENSE", "CHANGELOG.md", "requirements.txt"} <= {path.name for path in pack.iterdir()}
    assert "isnet" in run([sys.executable, "-I", pack / "cnc.py", "list"], tmp_path)
    with Server(comfy, pack=pack) as server:
        for picture in demo.PICTURES.glob("*.png"):
            (server.input / picture.name).write_bytes(picture.read_bytes())
        flow, shown = demo.workflow(server.object_info(), demo.SCENES[2], steps=2, seed=1)
        done = server.run(flow.prompt)
        assert done.error is None, done.error
        assert len(done.images(shown["result"])) == 1
        assert "CnC_Compose" in server.get("/i18n")["ko"]["nodeDefs"]
        assert set(server.get("/workflow_templates")) <= {"compose-and-conquer"}
