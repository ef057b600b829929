#!/usr/bin/env python3
"""The developer's commands. Each makes what it needs first; the second time that is quick.

    python3 dev.py demo [--picture FILE]    run a workflow on a real ComfyUI, write ./demo_output
    python3 dev.py test [--all] [pytest's]  ruff, mypy and the tests; --all adds the slow ones
    python3 dev.py serve [ComfyUI's]        start ComfyUI with the pack, to be used in a browser
    python3 dev.py bench [NAME] [its own]   measure on this machine: step, layers, perception, training

With --comfy PATH a ComfyUI of your own is used as it is, instead of the one in .host.
Standard library only: it runs under any Python 3.11 or newer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devtools.hosts import Host

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)
PICTURE = {
    "picture": "run the demo on a picture of yours",
    "background": "with --picture: put its object in front of this one",
    "models": "with --picture: a models folder to take salience, inpainting and depth from; else the ComfyUI's own",
}


def main() -> int:
    """Run the command of the command line; return its exit code."""
    arguments, rest = _parse()
    if sys.version_info < OLDEST:
        needed = ".".join(map(str, OLDEST))
        print(f"dev.py needs Python {needed} or newer; {sys.executable} is {sys.version.split()[0]}.", file=sys.stderr)
        print(f"Install a newer one and call it by name, for example: python{needed} dev.py test", file=sys.stderr)
        return 2

    from devtools.environment import SetupError
    from devtools.hosts import own_host, users_host

    try:
        host = users_host(arguments.comfy, arguments.python) if arguments.comfy else own_host()
        code: int = arguments.run(host, arguments, rest)
        return code
    except SetupError as error:
        print(f"\ndev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.set_defaults(comfy=None, python=None)
    commands = parser.add_subparsers(dest="command", required=True)
    named = {}
    for name, run in {"demo": _demo, "test": _test, "serve": _serve, "bench": _bench}.items():
        named[name] = commands.add_parser(name, allow_abbrev=False)
        named[name].set_defaults(run=run)
    named["test"].add_argument("--all", action="store_true", help="also the tests marked slow")
    for option, text in PICTURE.items():
        _add_path(named["demo"], f"--{option}", text)
    for place in (parser, *named.values()):  # before or after the command, as one likes
        _add_path(place, "--comfy", "a ComfyUI of your own (the folder with main.py)")
        _add_path(place, "--python", "the Python that runs it, where it is not found")
    return parser.parse_known_args()


def _add_path(parser: argparse.ArgumentParser, option: str, text: str) -> None:
    # Without a default of its own, a command does not undo what was given before it.
    parser.add_argument(option, type=Path, metavar="PATH", default=argparse.SUPPRESS, help=text)


def _demo(host: Host, arguments: argparse.Namespace, rest: list[str]) -> int:
    # Seen from where the command was given: the demo runs in this folder.
    given = [(f"--{name}", getattr(arguments, name).expanduser().absolute()) for name in PICTURE if name in arguments]
    picture = [part for option in given for part in option]
    return _call([host.python, "-m", "devtools.demo", host.comfy, *host.device_arguments(), *picture, *rest], host)


def _serve(host: Host, arguments: argparse.Namespace, rest: list[str]) -> int:
    if not host.own:
        host.link()
    launcher = ROOT / "devtools" / "launch.py"
    return _call([host.python, launcher, host.comfy, *host.device_arguments(), *rest], host)


def _bench(host: Host, arguments: argparse.Namespace, rest: list[str]) -> int:
    return _call([host.python, "-m", "benchmarks", *rest], host)


def _test(host: Host, arguments: argparse.Namespace, rest: list[str]) -> int:
    """ruff and mypy (for a whole run on the test host), then pytest, whose summary comes last."""
    failed = []
    if host.own and not rest:
        for tool in (["ruff", "check", "."], ["mypy"]):
            print(f"[dev] {' '.join(tool)}", flush=True)
            if _call([host.python, "-m", *tool], host) != 0:
                failed.append(tool[0])
    marks = [] if arguments.all else ["-m", "not slow"]
    if not rest:
        _say_what_is_left_out(host, arguments.all)
    processes = _on_two_processes(host) if not rest else []
    # Each with one thread, unless told otherwise: more threads than cores wait for each other.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} if processes else {}
    code = _call([*_pytest(host), *marks, *processes, *rest], host, threads)
    if failed:
        print(f"[dev] {' and '.join(failed)} failed, see above the tests", flush=True)
    return code or bool(failed)


def _say_what_is_left_out(host: Host, slow: bool) -> None:
    """The tests that will not run: the slow ones unless asked for, the browser's where there is none."""
    from devtools.environment import say

    if not slow:
        say("not run: tests marked slow, those in a browser among them; `dev.py test --all` runs them")
    command = [str(host.python), "-m", "devtools.templates.chromium"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode != 0:
        say(f"skipped: tests/browser, the front end's own tests, for there is {found.stdout.strip()}")


def _on_two_processes(host: Host) -> list[str]:
    """A file's tests stay in one process; files keep their order, so that the longest are not left to the end."""
    if not host.has("xdist") or (os.cpu_count() or 1) < 2:
        return []
    return ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]


def _pytest(host: Host) -> list[str | Path]:
    """The command that runs pytest in the host's Python, beside which it may have to be put."""
    if host.has("pytest"):
        return [host.python, "-m", "pytest"]
    from devtools.environment import say

    tools = ROOT / ".host" / "pytest"
    if not (tools / "pytest").is_dir():
        say(f"{host.python} has no pytest: putting one into {tools}, outside of your ComfyUI")
        code = _call([sys.executable, "-m", "pip", "install", "--quiet", "--target", tools, "pytest"], host)
        if code != 0:
            raise SystemExit(code)
    begin = f"import sys; sys.path.insert(0, {str(tools)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    return [host.python, "-c", begin]


def _call(command: list[str | Path], host: Host, extra: dict[str, str] | None = None) -> int:
    environment = {**os.environ, "CNC_COMFY": str(host.comfy), **(extra or {})}
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
