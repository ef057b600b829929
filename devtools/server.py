"""A real ComfyUI server in a folder of its own, driven over HTTP as the front end drives it.

    with Server(comfy) as server:
        run = server.run(prompt)        # prompt: the API format, {node id: {class_type, inputs}}
        run.executed, run.images("9"), run.error

Needs aiohttp, which every ComfyUI brings: use it from the Python that runs ComfyUI.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from .link import link_folder, link_pack
from .rooms import ROOT

Prompt = Mapping[str, Mapping[str, Any]]


class ServerError(RuntimeError):
    """The server did not start, died, or did not answer in time; the end of its log is included."""


@dataclass(frozen=True)
class Run:
    """What one posted workflow did. Node ids are the host's; an expanded node's parts have their own.

    executed: the nodes whose code ran, in the order in which they last began.
    cached: the nodes of the posted workflow whose outputs were still at hand.
    outputs: what output nodes reported to the interface, by node id, cached ones included.
    error: the text that the user would see, or None.
    messages: every message about this run, (type, data), as sent to the front end.
    """

    url: str
    executed: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def images(self, node_id: str) -> list[bytes]:
        """The files that a SaveImage or PreviewImage node wrote, fetched from the server."""
        files = self.outputs[node_id]["images"]
        return [_fetch(f"{self.url}/view?{urllib.parse.urlencode(file)}") for file in files]


class Server:
    """A ComfyUI with this pack (or `pack`, or None) as its only custom node.

    Its models, input, output, user and custom_nodes folders lie in a temporary `base`, so that the
    ComfyUI stays as it was and several servers run side by side. Put test models under `models`
    and images into `input` at any time: the host looks again at each request.
    """

    def __init__(
        self,
        comfy: Path,
        *,
        python: str = sys.executable,
        pack: Path | None = ROOT,
        extra_args: Sequence[str] = ("--cpu",),
        env: Mapping[str, str] | None = None,
        start_timeout: float = 300.0,
    ) -> None:
        self.comfy = comfy.resolve()
        self.base = Path(tempfile.mkdtemp(prefix="cnc-server-"))
        self.models = self.base / "models"
        self.input = self.base / "input"
        self.output = self.base / "output"
        for folder in (self.models, self.input, self.output, self.base / "custom_nodes"):
            folder.mkdir()
        if pack is not None:
            link_pack(pack, self.base / "custom_nodes")
        self._log = self.base / "server.log"
        self._start_timeout = start_timeout
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._command = [
            python,
            str(Path(__file__).with_name("launch.py")),
            "--with-parent",
            str(self.comfy),
            *("--port", self.url.rpartition(":")[2]),
            *("--base-directory", str(self.base)),
            *("--database-url", "sqlite:///:memory:"),
            *("--disable-api-nodes", "--disable-auto-launch"),
            *extra_args,
        ]
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._env
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    def link_models(self, models: Path, *folders: str) -> None:
        """Let it have these folders of another `models`, those of them that are there."""
        for name in folders:
            place = self.models / name
            if (models / name).is_dir():
                if place.is_dir():
                    place.rmdir()  # made by the server, and empty
                link_folder((models / name).resolve(), place)

    @property
    def pid(self) -> int:
        """The server's process. Raises ServerError where it was not started."""
        if self._process is None:
            raise ServerError("the server was not started")
        return self._process.pid

    def log(self) -> str:
        """All that the server has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        """The JSON that the server answers to GET `path`."""
        return json.loads(_fetch(self.url + path))

    def object_info(self) -> dict[str, Any]:
        """Every node's definition as the front end gets it."""
        info: dict[str, Any] = self.get("/object_info")
        return info

    def interrupt(self) -> None:
        """Ask the server to stop the workflow that is running."""
        self._post("/interrupt", {})

    def clear_queue(self) -> None:
        """Ask the server to forget the workflows that wait."""
        self._post("/queue", {"clear": True})

    def free(self) -> None:
        """Ask the server to unload its models and drop what it has cached, before the next workflow."""
        self._post("/free", {"unload_models": True, "free_memory": True})

    def clear_history(self) -> None:
        """Ask the server to forget the workflows that it has run; what they saved stays."""
        self._post("/history", {"clear": True})

    def _post(self, path: str, body: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers)
        urllib.request.urlopen(request, timeout=30).close()

    def run(self, prompt: Prompt, timeout: float = 600.0) -> Run:
        """Post a workflow and follow it to its end.

        Raises TimeoutError (after interrupting it) or ServerError if the server dies. A workflow
        that fails is a Run with its `error` set.
        """
        began = time.monotonic()
        try:
            run = asyncio.run(asyncio.wait_for(self._follow(prompt), timeout))
        except TimeoutError:
            self.interrupt()
            raise TimeoutError(f"no end after {timeout:.0f} s\n{self._tail()}") from None
        except aiohttp.ClientError as error:
            raise ServerError(f"the server broke off: {error}\n{self._tail()}") from error
        return Run(**{**vars(run), "seconds": time.monotonic() - began})

    async def _follow(self, prompt: Prompt) -> Run:
        client = uuid.uuid4().hex
        async with (
            aiohttp.ClientSession(self.url) as session,
            session.ws_connect("/ws", params={"clientId": client}, max_msg_size=0) as socket_,
        ):
            async with session.post("/prompt", json={"prompt": prompt, "client_id": client}) as reply:
                answer = await reply.json()
            if reply.status != 200:
                return Run(self.url, error=_rejection(answer))
            prompt_id = answer["prompt_id"]
            messages = await _messages(socket_, prompt_id)
            if messages is None:
                raise ServerError(f"the server closed the connection\n{self._tail()}")
            async with session.get(f"/history/{prompt_id}") as reply:
                history = (await reply.json())[prompt_id]
        error = _rejection(answer) if answer.get("node_errors") else None
        for kind, data in messages:
            if kind == "execution_error":
                error = f"{data['exception_type']}: {data['exception_message']}".strip()
            elif kind == "execution_interrupted":
                error = f"interrupted at node {data['node_id']} ({data['node_type']})"
        return Run(
            url=self.url,
            executed=_last_begun(messages),
            cached=[node for kind, data in messages if kind == "execution_cached" for node in data["nodes"]],
            outputs=history["outputs"],
            error=error,
            messages=messages,
        )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerError(f"ComfyUI ended with {process.returncode}\n{self._tail()}")
            try:
                self.get("/system_stats")
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
            else:
                return
        raise ServerError(f"ComfyUI did not answer in {self._start_timeout:.0f} s\n{self._tail()}")

    def _tail(self, lines: int = 40) -> str:
        return "\n".join(["the end of its log:", *self.log().splitlines()[-lines:]])


async def _messages(
    socket_: aiohttp.ClientWebSocketResponse, prompt_id: str
) -> list[tuple[str, dict[str, Any]]] | None:
    """The run's messages up to its end, or None if the connection closed before."""
    messages: list[tuple[str, dict[str, Any]]] = []
    async for message in socket_:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue  # binary messages are preview pictures
        packet = json.loads(message.data)
        kind, data = packet["type"], packet["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        messages.append((kind, data))
        # Sent once the history has the results.
        if kind == "executing" and data["node"] is None:
            return messages
    return None


def _last_begun(messages: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Node ids by their last "executing": one that asks for lazy inputs begins twice."""
    begun = [data["node"] for kind, data in messages if kind == "executing" and data["node"] is not None]
    return list(reversed(dict.fromkeys(reversed(begun))))


def _rejection(answer: Mapping[str, Any]) -> str:
    """The validation errors as text, one line each."""
    lines = []
    if isinstance(answer.get("error"), dict):
        lines.append(f"{answer['error']['message']} {answer['error']['details']}".strip())
    for node_id, found in answer.get("node_errors", {}).items():
        for error in found["errors"]:
            lines.append(f"{found['class_type']} {node_id}: {error['message']}: {error['details']}")
    return "\n".join(lines)


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as reply:
        content: bytes = reply.read()
    return content


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
