"""The tests of this folder, on a device that is none: what they compare is the same on every device, and no
operation mixes tensors of the device and of the host.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerator import accelerator

HERE = Path(__file__).parent


def rehearse(kind: str, *words: str) -> tuple[int, str]:
    """The tests of this folder in a process of their own; how many passed, and what was printed."""
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "pytest",
            "-q",
            "-m",
            "device",
            "-p",
            "no:cacheprovider",
            str(HERE),
            *words,
        ],
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        | {"XPO_BENCH_TEST_DEVICE": kind},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) passed", done.stdout)
    assert found
    return int(found[1]), done.stdout


def test_no_operation_mixes_devices() -> None:
    passed, printed = rehearse("standin", "-k", "not [model] and not deterministic")
    assert passed >= 28, printed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["standin", "cpu"])
def test_everywhere_but_on_a_gpu(kind: str) -> None:
    passed, printed = rehearse(kind)
    assert passed >= 22, printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_they_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of a device that is not there do not pass, nor are they skipped."""
    with pytest.raises(pytest.fail.Exception, match="no CUDA device is here"):
        accelerator("cuda", monkeypatch)


def test_an_unknown_device_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.fail.Exception, match="'gpu'; it must be one of cuda, cpu, standin"):
        accelerator("gpu", monkeypatch)
