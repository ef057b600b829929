"""What the archive holds that users install: the files that git tracks, without those of .comfyignore."""

from __future__ import annotations

import subprocess
from pathlib import Path


def archive_files(root: Path) -> list[str]:
    """Return the paths in the archive that `comfy node pack` makes of a checkout, with slashes."""
    return sorted(_tracked(root) - _tracked(root, "--ignored", "--exclude-from=.comfyignore"))


def _tracked(root: Path, *options: str) -> set[str]:
    command = ["git", "ls-files", "--cached", "-z", *options]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    return {name for name in listed.split("\0") if (root / name).is_file()}
