"""Peak resident memory of one contender, in a process of its own.

    python -m benchmarks.memory CONTENDER SIZE FUSERS full|tiny

prints the peak in bytes. CONTENDER: plain, or the name of the two layers or of a row of more.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .rows import LAYER_ROWS

ROOT = Path(__file__).resolve().parents[1]
STEPS = 2


def peak_in_a_fresh_process(contender: str, size: int, fusers: Path, networks: str = "full") -> int:
    """Return the peak resident bytes of a contender by its name, those but ``plain`` with this file of fusers."""
    command = [sys.executable, "-m", "benchmarks.memory", contender, str(size), str(fusers), networks]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(finished.stdout.split()[-1])


def peak(pid: int | None = None) -> int:
    """Return a process's peak resident bytes so far, this one's where none is named."""
    status = Path(f"/proc/{pid or 'self'}/status")
    if status.exists():  # getrusage would count the parent's memory at the fork as well
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    import psutil  # the host brings it

    memory = psutil.Process(pid).memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def main() -> None:
    """Sample with the contender named on the command line and print the peak."""
    name, size, path, networks = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    from .host import enter

    pack = enter()
    from . import contenders
    from .runs import Step, with_open_runs

    model, given = contenders.plain_model(contenders.NETWORKS[networks]), contenders.pictures(size)
    if name == "plain":
        contender = contenders.plain(model, given)
    else:
        fusers = pack.part("nodes.host.fusers").load(path)
        if name in LAYER_ROWS:
            contender = contenders.with_layers(model, pack, fusers, given, LAYER_ROWS[name])
        else:
            contender = contenders.with_fusers(model, pack, fusers, given, guided=True)

    def sample(steps: list[Step]) -> None:
        for _ in range(STEPS):
            steps[0]()

    with_open_runs([contender], size, sample)
    print(peak())


if __name__ == "__main__":
    main()
