"""Peak resident memory of one contender, in a process of its own.

    python -m benchmarks.memory plain|ours SIZE [FUSERS]

prints the peak in bytes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = 2


def peak_in_a_fresh_process(what: str, size: int, fusers: Path) -> int:
    """Return the peak resident bytes of ``plain``, or of ``ours`` with this file of fusers."""
    command = [sys.executable, "-m", "benchmarks.memory", what, str(size), str(fusers)]
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
    what, size, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    from .host import enter

    pack = enter()
    from . import contenders
    from .runs import Step, with_open_runs

    model, given = contenders.plain_model(), contenders.pictures(size)
    if what == "ours":
        fusers = pack.part("nodes.host.fusers").load(path)
        contender = contenders.with_fusers(model, pack, fusers, given, guided=True)
    else:
        contender = contenders.plain(model, given)

    def sample(steps: list[Step]) -> None:
        for _ in range(STEPS):
            steps[0]()

    with_open_runs([contender], size, sample)
    print(peak())


if __name__ == "__main__":
    main()
