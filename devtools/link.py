"""Put the pack into a ComfyUI's custom_nodes as a link, so that edits are seen at the next start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NAME = "compose-and-conquer"


def link_pack(pack: Path, custom_nodes: Path) -> Path:
    """Make custom_nodes/compose-and-conquer lead to `pack` and return where the pack is found.

    A pack that already lies in `custom_nodes`, under any name, is left as it is. Raises
    FileExistsError if something else has the name.
    """
    pack = pack.resolve()
    for entry in custom_nodes.iterdir():
        if entry.exists() and entry.resolve() == pack:
            return entry
    place = custom_nodes / NAME
    if os.path.lexists(place) and not place.exists():
        place.unlink()  # it led to a checkout that is gone
    if place.exists():
        raise FileExistsError(f"{place} exists and is not this checkout ({pack}): move it away, then run again")
    link_folder(pack, place)
    return place


def link_folder(target: Path, place: Path) -> None:
    """Make `place` lead to the folder `target`."""
    if sys.platform == "win32":  # a junction needs no special rights, unlike a symbolic link
        command = ["cmd", "/c", "mklink", "/J", str(place), str(target)]
        subprocess.run(command, check=True, capture_output=True)
    else:
        os.symlink(target, place, target_is_directory=True)
