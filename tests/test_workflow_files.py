"""What GitHub reads: workflows that start what is here, forms that it takes, the versions of the lock.

actionlint checks the workflows themselves, by pre-commit.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools import environment

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
STARTED = re.compile(r"\bpython3? (?:-m (devtools[\w.]*)|([\w./]+\.py))|(?:^|\s)(\.ci/\w+)")


def read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506  `on` is no truth value


def commands(workflow: Any) -> list[str]:
    """All that a workflow runs."""
    return [step["run"] for job in workflow["jobs"].values() for step in job.get("steps", ()) if "run" in step]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_starts_what_is_here(path: Path) -> None:
    workflow = read(path)
    started = [next(filter(None, found)) for command in commands(workflow) for found in STARTED.findall(command)]
    files = [name.replace(".", "/") + ".py" if name.startswith("devtools") else name for name in started]
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values() if "uses" not in job)


def test_the_tests_run_where_users_are() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    assert len(jobs["all"]["strategy"]["matrix"]["python"]) == 2
    assert jobs["quick"]["strategy"]["matrix"]["os"] == ["windows-latest", "macos-latest"]
    assert any("dev.py test --all --comfy" in command for command in commands({"jobs": {"newest": jobs["newest"]}}))


def test_nothing_is_published_before_the_tests() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "publish.yml")
    assert workflow["on"] == {"push": {"tags": ["v*.*.*"]}}
    assert workflow["jobs"]["publish"]["needs"] == "tests"
    assert workflow["jobs"]["tests"]["uses"] == "./.github/workflows/tests.yml"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_versions_and_workflow(path: Path) -> None:
    form = read(path)
    fields = {field["id"]: field for field in form["body"] if field["type"] != "markdown"}
    assert form["name"] and form["description"] and len(fields) == len(form["body"]) - 1
    text = str(fields).lower()
    assert "version" in text and "workflow" in text


def test_pre_commit_has_the_ruff_of_the_lock() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (locked,) = re.findall(r"^ruff==(.+)$", environment.CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"ruff==([\d.]+)", text)) == {locked}
