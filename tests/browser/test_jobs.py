"""A job belongs to the tab that queued it, and a release queues one job at a time."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from devtools.server import Server

from .editor import Editor, example

pytestmark = pytest.mark.slow

STRIP = ".cnc-strip:visible img"


@contextmanager
def busy(server: Server) -> Iterator[None]:
    """Let a job that nobody at the page has queued run meanwhile, so that others wait."""
    prompt = example(server.object_info())
    next(node for node in prompt.values() if node["class_type"] == "KSampler")["inputs"]["steps"] = 1000
    data, headers = json.dumps({"prompt": prompt}).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/prompt", data=data, headers=headers)
    urllib.request.urlopen(request, timeout=30).close()
    try:
        yield
    except BaseException:
        server.clear_queue()  # or what waits would be in the way of the next try
        raise
    finally:
        server.interrupt()


def waiting(server: Server) -> list[str]:
    """The ids of the jobs that wait, the next one first."""
    return [job[1] for job in sorted(server.get("/queue")["queue_pending"])]


def test_pictures_go_to_the_tab_that_ran(renderer: str, editor: Editor) -> None:
    """Two tabs hold nodes of the same ids, and the other one is open when the pictures come."""
    prompt = example(editor.server.object_info(), lambda_fg=0.75 if renderer == "Vue nodes" else 0.7)
    editor.load(prompt, name="first")
    with busy(editor.server):
        editor.command("Comfy.QueuePrompt")
        editor.wait_for(lambda: waiting(editor.server), "the job")
        (job,) = waiting(editor.server)
        editor.load(prompt, name="second")
    editor.wait_for(lambda: editor.ended(job), "the end of the job")
    assert editor.page.locator(STRIP).count() == 0
    editor.command("Workspace.PreviousOpenedWorkflow")
    editor.page.locator(STRIP).first.wait_for()
    shown = editor.page.locator(STRIP).count()
    editor.command("Workspace.NextOpenedWorkflow")
    editor.wait_for(lambda: not editor.page.locator(STRIP).count(), "the other tab")
    editor.command("Workspace.PreviousOpenedWorkflow")
    editor.page.locator(STRIP).first.wait_for()
    editor.drag_pad((0.5, 0.5), (0.2, 0.8))
    editor.command("Comfy.Undo")
    editor.wait_for(lambda: editor.page.locator(STRIP).count() == shown, "the pictures after an undo")


def test_a_release_replaces_the_job_that_waits(releasing: None, editor: Editor) -> None:
    """Its own alone: neither the user's jobs nor one that runs."""
    server = editor.server
    editor.load(example(server.object_info()))
    with busy(server):
        editor.wait_for(lambda: server.get("/queue")["queue_running"], "the job that runs")
        (running,) = server.get("/queue")["queue_running"]
        editor.command("Comfy.QueuePrompt")
        editor.wait_for(lambda: len(waiting(server)) == 1, "the user's job")
        own = waiting(server)
        for place in ((0.2, 0.8), (0.6, 0.3), (0.9, 0.6)):
            before = waiting(server)
            editor.drag_pad((0.5, 0.5), place)
            editor.wait_for(lambda before=before: len(waiting(server)) == 2 and waiting(server) != before, "a release")
        assert waiting(server)[:1] == own
        last = next(job for job in server.get("/queue")["queue_pending"] if job[1] not in own)
        sent = next(node["inputs"] for node in last[2].values() if node["class_type"] == "CnC_Compose")
        assert (sent["lambda_fg"], sent["lambda_bg"]) == editor.lambdas()
        assert [job[1] for job in server.get("/queue")["queue_running"]] == [running[1]]
    for job in (*own, last[1]):
        editor.wait_for(lambda job=job: job in server.get(f"/history/{job}"), "both jobs done")
