"""Model folders of the pack, registered beside whatever the user has configured."""

from __future__ import annotations

import os

import folder_paths

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
    """Return the path of a file in ``models/cnc``. Raises FileNotFoundError, with the folders looked in."""
    path: str | None = folder_paths.get_full_path(FUSERS, name)
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(FUSERS))
        raise FileNotFoundError(
            f"there is no file {name!r} of fusers; looked in {folders}. Put cnc_v1.ckpt of the authors' release, or "
            "a .safetensors of your own training, there"
        )
    return path
