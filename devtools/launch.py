"""Start ComfyUI's main.py, with the two torchvision operators that a CPU-only torch may lack.

    python devtools/launch.py [--with-parent] PATH_TO_COMFYUI [ComfyUI's own arguments]

The torchvision of the package index is linked against CUDA torch. Beside a CPU-only torch its
import ends with "operator torchvision::nms does not exist", and ComfyUI imports it at start.
Declaring the two operators is enough: nothing here calls them. Any other torch is left alone, and
the node pack never does this. With --with-parent ComfyUI ends when its standard input is closed, as it
is when the process that started it is gone.
"""

from __future__ import annotations

import importlib.metadata
import os
import runpy
import sys
import threading
from pathlib import Path

_keep: list[object] = []  # a torch.library.Library undoes its definitions when it is collected


def complete_torchvision() -> bool:
    """Make `import torchvision` work beside a CPU-only torch; return whether it needed help."""
    if not importlib.metadata.version("torch").endswith("+cpu"):
        return False  # nor import torch before ComfyUI has chosen its allocator
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return False
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _keep.append(library)
    import torchvision  # noqa: F401

    return True


def main() -> None:
    """Run PATH_TO_COMFYUI/main.py as `python main.py` would, this file's folder off sys.path."""
    here = Path(__file__).resolve().parent
    if sys.argv[1] == "--with-parent":
        del sys.argv[1]
        threading.Thread(target=_end_with_input, daemon=True).start()
    comfy = Path(sys.argv[1]).resolve()
    sys.argv = [str(comfy / "main.py"), *sys.argv[2:]]
    sys.path[:] = [str(comfy), *(entry for entry in sys.path if Path(entry).resolve() != here)]
    os.chdir(comfy)
    complete_torchvision()
    runpy.run_path(sys.argv[0], run_name="__main__")


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
