"""The conformance kit over every built-in algorithm, as a third party runs it over its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from xpo_bench.plugins import load
from xpo_bench.testing import parametrize_with_checks
from xpo_bench.testing.declared import IMPORT_BOUND_S
from xpo_bench.testing.parametrize import PytestCheck

FOUND = {
    name: cls for name, (cls, info) in sorted(load().algorithms.items()) if info.distribution == "xpo-bench"
}


@parametrize_with_checks(FOUND.values())
def test_conforms(check: PytestCheck) -> None:
    if check.bound.name == "import-time" and check.bound.algorithm.name != "dpo":
        pytest.skip("all modules at once, below: torch is imported once")
    check()


def test_all_modules_together_import_quickly() -> None:
    probe = """
import importlib, json, sys, time
import torch, xpo_bench.contract.algorithm
torch_s = time.process_time()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps([torch_s, time.process_time() - torch_s]))
"""
    names = json.dumps([cls.__module__ for cls in FOUND.values()])
    done = subprocess.run(
        [sys.executable, "-c", probe, names], capture_output=True, text=True, check=True, timeout=120
    )
    torch_s, own_s = json.loads(done.stdout)
    assert own_s < max(IMPORT_BOUND_S, torch_s / 2)
