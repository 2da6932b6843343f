"""The processor time of a command is also that of processes which it leaves to end by themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest
from checkout import FOLDER

LEFT = "x = sum(i * i for i in range(10**6))"
SCRIPT = f"""
import os, subprocess, sys
from benchmarks.commands import adopt, wait_for_all

whole = adopt()
leaves = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {LEFT!r}])"
subprocess.run([sys.executable, "-c", leaves], check=True)
before = os.times().children_user
wait_for_all()
print(whole and os.times().children_user - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_what_a_command_leaves_behind_counts() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0.02
