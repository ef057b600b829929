"""Model folders of the pack, registered beside whatever the user has configured."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import folder_paths

from ...cnc_core.command_lines import PACK, SCRIPT, quoted

FUSERS = "cnc"


def register_folder(name: str, extensions: set[str]) -> None:
    """Add ``models/<name>`` to the host's folders. An entry that exists already, as from extra_model_paths.yaml,
    is extended; without extensions the host would list every file.
    """
    default = os.path.join(folder_paths.models_dir, name)
    paths, known = folder_paths.folder_names_and_paths.get(name, ([], set()))
    paths = list(paths) if default in paths else [*paths, default]
    folder_paths.folder_names_and_paths[name] = (paths, set(known) | extensions)


def register_fusers() -> None:
    """Add ``models/cnc``, where the fusers' checkpoints are."""
    register_folder(FUSERS, {".safetensors", ".sft", ".ckpt", ".pt", ".pth"})


def fuser_files() -> list[str]:
    """Return the names of the files in ``models/cnc``."""
    names: list[str] = folder_paths.get_filename_list(FUSERS)
    return names


def fuser_path(name: str) -> str:
    """Return the path of a file in ``models/cnc``. Raises FileNotFoundError where there is none."""
    path: str | None = folder_paths.get_full_path(FUSERS, name)
    if path is None:
        raise FileNotFoundError(
            f"there is no file {name!r} of fusers in models/{FUSERS}. Put cnc_v1.ckpt of the authors' release, or a "
            ".safetensors of your own training, there"
        )
    return path


def without_server_paths(text: str) -> str:
    """Return an error's text with files named by folder and name: who posts a workflow may be anyone.

    A file in one of the host's folders is named from that folder on, such as ``cnc/cnc_v1.ckpt``, and the Python
    that runs is ``python``.
    """
    names = {sys.executable: "python", str(PACK): f"custom_nodes/{PACK.name}", str(Path.home()): "~"}
    names |= {quoted(sys.executable): "python", quoted(str(SCRIPT)): quoted(f"custom_nodes/{PACK.name}/{SCRIPT.name}")}
    names |= {folder_paths.base_path: "ComfyUI", folder_paths.models_dir: "models"}
    for name in ("input", "output", "temp", "user"):
        names[getattr(folder_paths, f"get_{name}_directory")()] = name
    for name, (paths, _) in folder_paths.folder_names_and_paths.items():
        names |= {path: name for path in paths if Path(path).parent != Path(folder_paths.models_dir)}
    forms = {form: name for path, name in names.items() for form in (path, os.path.realpath(path), repr(path)[1:-1])}
    for path, name in sorted(forms.items(), key=lambda pair: -len(pair[0])):
        if len(Path(path).parts) > 1:  # a root of the file system would be found everywhere
            text = re.sub(rf"(?<![\w./\\-]){re.escape(path)}(?![\w.-])", lambda _, name=name: name, text)
    return text
