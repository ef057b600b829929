"""The pack's commands, from any folder and with any Python that runs ComfyUI.

python cnc.py list
python cnc.py fetch NAME [NAME ...] [--into COMFYUI/models] [--mirror URL]
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # An isolated Python, as in ComfyUI's portable build, searches neither this folder nor the current one.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from cnc_core.perception.__main__ import main

    sys.exit(main())
