"""Commands that messages quote: to be pasted into cmd, PowerShell or sh, in any folder.

A message cannot know the shell. So a command is one program with its arguments, without `cd` and `&&` (which
PowerShell 5.1 lacks), and a path with spaces is quoted from its middle on: PowerShell takes a line that begins with a
quote for a text, and cmd knows no other quotes than these.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
"""This repository, or the folder that it is installed in."""

SCRIPT = PACK / "cnc.py"
"""Runs a command of the pack. By its path, since a Python with a ``._pth`` file, as ComfyUI's portable build has it,
finds no module in the current folder."""


def command_line(*arguments: str) -> str:
    """Return the command that runs this Python with these arguments."""
    return " ".join(quoted(part) for part in (sys.executable, *arguments))


def pip_install(*arguments: str) -> str:
    """Return the command that installs packages for this Python."""
    return command_line("-m", "pip", "install", *arguments)


def quoted(part: str, *, windows: bool = sys.platform == "win32") -> str:
    """Return a path or an argument as the system's shells read it."""
    if not windows:
        return shlex.quote(part)
    if re.fullmatch(r"[\w.:/\\+~-]+", part):
        return part
    begin = 3 if re.match(r"[A-Za-z]:\\|\\\\\w", part) else 0
    return f'{part[:begin]}"{part[begin:]}"'
