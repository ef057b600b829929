"""Which ComfyUI, and the Python that runs it: the test host of this checkout, or a user's own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import environment
from .environment import SetupError, say
from .link import link_pack

ACCELERATED = (
    "import torch; raise SystemExit(not (torch.cuda.is_available() or torch.backends.mps.is_available()"
    " or (hasattr(torch, 'xpu') and torch.xpu.is_available())))"
)


@dataclass(frozen=True)
class Host:
    """A ComfyUI. own: made by dev.py inside this checkout."""

    comfy: Path
    python: Path
    own: bool

    def has(self, *modules: str) -> bool:
        """Whether its Python could import all of these."""
        code = f"import importlib.util as u; raise SystemExit(not all(map(u.find_spec, {modules!r})))"
        return subprocess.run([str(self.python), "-c", code]).returncode == 0

    def device_arguments(self) -> list[str]:
        """--cpu where its torch sees no accelerator: ComfyUI does not start there without it."""
        accelerated = subprocess.run([str(self.python), "-c", ACCELERATED], capture_output=True)
        return [] if accelerated.returncode == 0 else ["--cpu"]

    def link(self) -> None:
        """Put the pack into its custom_nodes."""
        try:
            place = link_pack(environment.ROOT, self.comfy / "custom_nodes")
        except FileExistsError as error:
            raise SetupError(str(error)) from None
        say(f"the pack is found at {place}")


def own_host() -> Host:
    """The test host of this checkout, made or repaired first."""
    environment.prepare()
    return Host(environment.COMFY, environment.PYTHON, own=True)


def users_host(comfy: Path, python: Path | None) -> Host:
    """A user's ComfyUI as it is, with the Python that runs it; nothing is installed into either."""
    comfy = comfy.expanduser().resolve()
    if not (comfy / "main.py").is_file():
        inside = comfy / "ComfyUI"
        hint = f" Is it {inside}?" if (inside / "main.py").is_file() else ""
        raise SetupError(f"{comfy} is not a ComfyUI: it has no main.py.{hint}")
    host = Host(comfy, python.expanduser().absolute() if python else _python_of(comfy), own=False)
    if not host.python.is_file():
        raise SetupError(f"there is no Python at {host.python}")
    if not host.has("torch", "aiohttp", "PIL"):
        raise SetupError(
            f"{host.python} does not run ComfyUI: it lacks torch, aiohttp or Pillow. Name the right one with --python."
        )
    say(f"using the ComfyUI in {comfy} with {host.python}, as they are")
    return host


def _python_of(comfy: Path) -> Path:
    """The Python beside a ComfyUI, where its installers put it."""
    inside = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    places = [
        comfy / "venv" / inside,
        comfy / ".venv" / inside,
        comfy.parent / "python_embeded" / "python.exe",  # so spelled in ComfyUI's portable build
    ]
    for place in places:
        if place.is_file():
            return place
    searched = ", ".join(str(place) for place in places)
    raise SetupError(f"no Python found beside {comfy} (looked for {searched}): name it with --python")
