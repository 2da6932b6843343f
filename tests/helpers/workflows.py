"""Runs the steps of a workflow and of the actions it uses in bash, as their host does.

Steps that use an action of others do nothing here, and `python -m pip` only notes its words. Everything else
runs as it is written.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Variables = Callable[..., dict[str, str]]
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then
  echo "$@" >> "{log}"
  exit 0
fi
exec "{python}" "$@"
"""


@dataclass
class Job:
    """What became of a job: whether it is green, the outputs of its steps, and what they printed."""

    green: bool = True
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    log: str = ""
    uses: list[str] = field(default_factory=list)
    """Actions of others that it would have used."""
    summary: str = ""
    pip: list[str] = field(default_factory=list)
    """The words of every `python -m pip`."""


@dataclass
class Host:
    """A host of workflows.

    Args:
        workspace: the folder of the checkout. temporary: for what is no part of it. installed: the folder
            with the script `xpo-bench`. variables: of every step, on top of which come its own. actions: name
            without a version -> the action that is run for it.
    """

    workspace: Path
    temporary: Path
    installed: Path
    variables: Variables
    actions: Mapping[str, Mapping[str, Any]]
    event: str = "push"

    def run(self, steps: list[dict[str, Any]], **env: str) -> Job:
        """Run the steps of a job."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        for name in ("summary.md", "pip.log"):
            (self.temporary / name).write_text("", "utf-8")
        tools = self.temporary / "bin"
        tools.mkdir(exist_ok=True)
        (tools / "python").write_text(
            PYTHON.format(log=self.temporary / "pip.log", python=sys.executable), "utf-8"
        )
        (tools / "python").chmod(0o755)
        path = [str(tools), str(self.installed), os.environ["PATH"]]
        job = Job()
        self._steps(job, steps, {}, env | {"PATH": os.pathsep.join(path)})
        job.summary = (self.temporary / "summary.md").read_text("utf-8")
        job.pip = (self.temporary / "pip.log").read_text("utf-8").splitlines()
        return job

    def _steps(
        self, job: Job, steps: list[dict[str, Any]], inputs: Mapping[str, str], env: dict[str, str]
    ) -> dict[str, dict[str, str]]:
        """Run steps in a scope of their own; the outputs of those with an id."""
        outputs: dict[str, dict[str, str]] = {}
        known = {"inputs": inputs, "steps": outputs}
        for step in steps:
            if not self._wanted(step.get("if"), job, known):
                continue
            found = self._use(job, step, known, env) if "uses" in step else self._bash(job, step, known, env)
            if "id" in step:
                outputs[step["id"]] = found
        job.outputs |= outputs
        return outputs

    def _use(
        self, job: Job, step: dict[str, Any], known: Mapping[str, Any], env: dict[str, str]
    ) -> dict[str, str]:
        name = step["uses"].partition("@")[0]
        given = {key: self._filled(str(value), known) for key, value in step.get("with", {}).items()}
        if name not in self.actions:
            job.uses.append(step["uses"])
            return {}
        action = self.actions[name]
        lacking = [k for k, v in action["inputs"].items() if v.get("required") and k not in given]
        unknown = given.keys() - action["inputs"].keys()
        assert not lacking, lacking
        assert not unknown, unknown
        defaults = {key: str(value.get("default", "")) for key, value in action["inputs"].items()}
        outputs = self._steps(job, action["runs"]["steps"], defaults | given, env)
        inner = {"inputs": defaults | given, "steps": outputs}
        return {key: self._filled(value["value"], inner) for key, value in action["outputs"].items()}

    def _bash(
        self, job: Job, step: dict[str, Any], known: Mapping[str, Any], env: dict[str, str]
    ) -> dict[str, str]:
        script, output = self.temporary / "step.sh", self.temporary / "output"
        script.write_text(step["run"], "utf-8")
        output.write_text("", "utf-8")
        own = {key: self._filled(str(value), known) for key, value in step.get("env", {}).items()}
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(self.temporary / "summary.md")}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=self.workspace,
            env=self.variables(env | own | files),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        job.log += done.stdout + done.stderr
        job.green = job.green and done.returncode == 0
        return dict(line.split("=", 1) for line in output.read_text("utf-8").splitlines())

    def _wanted(self, condition: str | None, job: Job, known: Mapping[str, Any]) -> bool:
        """Whether a step runs: always(), and comparisons with a text, joined by &&."""
        parts = [part.strip() for part in (condition or "").split("&&") if part.strip()]
        if "always()" not in parts and not job.green:
            return False
        return all(self._holds(part, known) for part in parts if part != "always()")

    def _holds(self, comparison: str, known: Mapping[str, Any]) -> bool:
        found = re.fullmatch(r"(\S+) (==|!=) '([^']*)'", comparison)
        assert found, comparison
        return (self._value(found[1], known) == found[3]) == (found[2] == "==")

    def _filled(self, text: str, known: Mapping[str, Any]) -> str:
        return EXPRESSION.sub(lambda found: self._value(found[1].strip(), known), text)

    def _value(self, name: str, known: Mapping[str, Any]) -> str:
        """The value of `inputs.x`, `steps.x.outputs.y`, `runner.x` or `github.x`; empty where none is."""
        everything = dict(known) | {
            "runner": {"temp": str(self.temporary), "os": "Linux"},
            "github": {"event_name": self.event},
        }
        first, *rest = name.split(".")
        assert first in everything, name
        value = everything[first]
        for part in [part for part in rest if part != "outputs"]:
            value = value.get(part, {}) if isinstance(value, Mapping) else {}
        return value if isinstance(value, str) else ""
