"""The command: `python -m devtools.templates [thumbnails] [PART OF A NAME]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..environment import COMFY, ROOT, say

WORKFLOWS = ROOT / "example_workflows"
SUBGRAPHS = ROOT / "subgraphs"
SCREENSHOTS = ROOT / ".cache" / "screenshots" / "templates"


def main() -> None:
    """Draw the workflows and blueprints, or run the workflows and make their thumbnails."""
    parser = argparse.ArgumentParser(prog="python -m devtools.templates", description=__doc__)
    parser.add_argument("what", nargs="?", default="draw", choices=("draw", "thumbnails"))
    parser.add_argument("--only", default="", metavar="PART", help="those whose name has this in it")
    parser.add_argument("--comfy", type=Path, default=COMFY, help="the ComfyUI to draw or run them on")
    options = parser.parse_args()
    if options.what == "draw":
        _draw(options.comfy, options.only)
    else:
        from .thumbnails import make

        make(options.comfy, sorted(path for path in WORKFLOWS.glob("*.json") if options.only in path.stem))


def _draw(comfy: Path, only: str) -> None:
    from .blueprints import BLUEPRINTS
    from .drawing import draw, page
    from .workflows import TEMPLATES

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with page(comfy) as opened:
        for folder, sheets in ((WORKFLOWS, TEMPLATES), (SUBGRAPHS, BLUEPRINTS)):
            folder.mkdir(exist_ok=True)
            for sheet in (make() for make in sheets):
                if only not in sheet.name:
                    continue
                drawn = draw(opened, sheet)
                text = json.dumps(drawn, ensure_ascii=False, indent=1) + "\n"
                (folder / f"{sheet.name}.json").write_text(text, encoding="utf-8")
                opened.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
                opened.wait_for_timeout(800)
                opened.screenshot(path=SCREENSHOTS / f"{sheet.name}.png")
                say(f"{folder.name}/{sheet.name}.json: {len(drawn['nodes'])} nodes")


if __name__ == "__main__":
    main()
