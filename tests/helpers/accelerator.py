"""The device that is compared with the CPU: XPO_BENCH_TEST_DEVICE, `cuda` by default.

`cpu` and `standin` rehearse these tests where there is no GPU: the first shows that they pass where both
sides are the same, the second that no operation mixes devices.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest
import torch

from xpo_bench.policy.language import flex, network
from xpo_bench.runner.devices import Devices

ASKED = os.environ.get("XPO_BENCH_TEST_DEVICE", "cuda")
PLACES = {"cuda": "cuda:0", "cpu": "cpu", "standin": "standin:0"}

if ASKED == "standin":
    import standin

    standin.device()  # before the first gradient of the process: autograd counts devices once


@dataclass(frozen=True)
class Accelerator:
    """What is compared with the CPU.

    Attributes:
        kind: `cuda`, `cpu` or `standin`. name: the device, as torch calls it.
    """

    kind: str
    name: str

    def there(self) -> AbstractContextManager[object]:
        """In which the device can be used."""
        return standin.on_standin() if self.kind == "standin" else nullcontext()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    """The device under test; a test fails where it is not there."""
    return accelerator(ASKED, monkeypatch)


def accelerator(kind: str, monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    """The device of that kind; of the stand-in, the suite learns for the time of a test.

    Raises:
        pytest.fail.Exception: it is not there.
    """
    if kind not in PLACES:
        pytest.fail(f"XPO_BENCH_TEST_DEVICE is {kind!r}; it must be one of {', '.join(PLACES)}")
    if kind == "cuda" and not torch.cuda.is_available():
        pytest.fail("no CUDA device is here; XPO_BENCH_TEST_DEVICE=cpu or standin rehearses these tests")
    if kind == "standin":
        monkeypatch.setitem(network.KERNELS, standin.NAME, flex)
        monkeypatch.setattr(flex, "_kernel", lambda device: standin.flex_attention)
        monkeypatch.setattr(Devices, "resolve", lambda self, asked: asked)
    return Accelerator(kind, PLACES[kind])
