"""Make the documentation's pictures on a real ComfyUI: help pages, docs/choosing.md, the registry's icon and banner.

    python -m devtools.documentation.make PATH_TO_COMFYUI [NAME ...]

Everything is CnC-Mini's, and the input pictures are the demo's: run it again when either has changed. The
screenshots of the tutorial need a browser and are made by devtools.documentation.tutorial_pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..environment import ROOT, say
from . import help_pictures, layer_pictures, symptom_pictures
from .pictured import Page, make, serve

_HELP = help_pictures.PAGES | layer_pictures.PAGES
FILES: dict[str, tuple[Path, Page]] = {
    **{name: (ROOT / "web" / "docs" / f"{name}.jpg", page) for name, page in _HELP.items()},
    **{name: (ROOT / "docs" / "pictures" / f"{name}.jpg", page) for name, page in symptom_pictures.PAGES.items()},
}


def main() -> None:
    """Make all pictures, or those named."""
    parser = argparse.ArgumentParser(prog="python -m devtools.documentation.make")
    parser.add_argument("comfy", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FILES)}; all where none is named")
    options = parser.parse_args()
    if unknown := set(options.names) - FILES.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    with serve(options.comfy) as server:
        for name in options.names or FILES:
            path, page = FILES[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            make(server, page).save(path, quality=85, optimize=True)
            say(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
