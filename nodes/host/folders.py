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
