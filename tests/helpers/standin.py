"""A device that is none, for machines without a GPU: `standin:0` refuses what a GPU refuses, and computes on
the CPU.

A tensor of the stand-in has its numbers on the host and hides them. Every operation is first made by torch's
FakeTensorMode on tensors of the device without numbers, which raises where devices are mixed, and then on the
numbers. Unlike FakeTensorMode by itself, which knows no values, whole runs go through it, with samples and
stopping rules; unlike `device="cuda"` in a CPU build of torch, whose indexing and backward pass want the
driver, gradients do too. What is computed is what the CPU computes, bit for bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

NAME = "standin"
READS = {torch.ops.aten._local_scalar_dense.default}
"""What hands a number to the host."""
INDEXED = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}
"""What takes indices from the host on any device; FakeTensorMode lets the host take them from a device too,
which torch does not."""


class MixedDevices(RuntimeError):
    """An operation on tensors of the host and of the device."""


Where: TypeAlias = bool | Sequence[bool]
"""Whether results are on the device: all alike, or each."""
FAKE = FakeTensorMode()
JUDGED: dict[Any, Where | MixedDevices] = {}
"""What FakeTensorMode said, which takes milliseconds, of an operation on tensors of such devices."""
PLAIN_DATA: Any = Tensor.data
"""How torch gives and takes what is in a tensor."""
ABROAD: list[MixedDevices] = []
"""What was mixed in the backward pass."""


@cache
def device() -> torch.device:
    """The stand-in; torch knows it from the first call on."""
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

    class Module(_DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    _setup_privateuseone_for_python_backend(NAME, Module())
    return torch.device(NAME, 0)


class There(Tensor):
    """A tensor of the stand-in; `host` has its numbers."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> There:
        made: There = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=device(),
        )
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return operate(func, args, kwargs or {})

    def tolist(self) -> Any:
        """The numbers, which torch gives of no subclass."""
        return self.cpu().tolist()

    @property
    def data(self) -> Tensor:
        """The tensor without its graph; what is assigned takes the place of its numbers."""
        found: Tensor = PLAIN_DATA.__get__(self)
        return found

    @data.setter
    def data(self, new: Tensor) -> None:
        assert isinstance(new, There)
        PLAIN_DATA.__set__(self, new)
        self.host = new.host


class OnStandin(TorchDispatchMode):
    """Within it, tensors can be made on the stand-in and moved to it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return operate(func, args, kwargs or {})


def operate(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation whose tensors may be on the device.

    Raises:
        MixedDevices: some are, and some are not.
    """
    given = [*_leaves(args), *_leaves(tuple(kwargs.values()))]
    if not any(isinstance(value, There) or _names_device(value) for value in given):
        return func(*args, **kwargs)
    there = _there(func, args, kwargs, given)
    found = func(*_on_host(args), **{name: _on_host(value) for name, value in kwargs.items()})
    known = {id(value.host): value for value in given if isinstance(value, There)}
    if isinstance(found, tuple | list):
        return type(found)(
            _back(one, on, known) for one, on in zip(found, _each(there, len(found)), strict=True)
        )
    return _back(found, _each(there, 1)[0], known)


def _leaves(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _leaves(value)
        else:
            yield value


def _names_device(value: Any) -> bool:
    return isinstance(value, torch.device) and value.type == NAME


def _on_host(value: Any) -> Any:
    if isinstance(value, There):
        return value.host
    if isinstance(value, tuple | list):
        return type(value)(map(_on_host, value))
    return torch.device("cpu") if _names_device(value) else value


def _back(found: Any, on_device: bool, known: dict[int, There]) -> Any:
    """A result on its device. What was changed in place is the tensor that it was."""
    if not on_device or not isinstance(found, Tensor):
        return found
    same = known.get(id(found))
    return There(found) if same is None else same


def _each(there: Where, count: int) -> Sequence[bool]:
    return [there] * count if isinstance(there, bool) else there


def _there(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: Sequence[Any]) -> Where:
    """Whether the results are on the device, or which of them are."""
    # it depends on the devices of what is given, and on what is a single number, which any device takes
    key = (func, *kwargs, *(_kind(value) for value in given))
    if key not in JUDGED:
        JUDGED[key] = _judged(func, args, kwargs, given)
    found = JUDGED[key]
    if not isinstance(found, MixedDevices):
        return found
    if threading.current_thread() is not threading.main_thread():
        # autograd computes gradients in a thread of the device, and an error there would abort the process
        ABROAD.append(found)
        return True
    raise found


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return isinstance(value, There), value.dim() == 0
    return str(value) if isinstance(value, torch.device) else None


def _judged(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: Sequence[Any]
) -> Where | MixedDevices:
    if func in INDEXED and not isinstance(args[0], There):
        return MixedDevices(f"{func}: a tensor of the host is indexed by one of the device")
    if func in READS:
        return False
    try:
        with FAKE:
            found = func(*tree_map(_fake, args), **tree_map(_fake, kwargs))
    except (DataDependentOutputException, DynamicOutputShapeException):
        return True  # as many results as there are values that fit, in a tensor of the device
    except NotImplementedError:  # fused optimizers have no version without numbers
        shaped = {value.device for value in given if isinstance(value, Tensor) and value.dim()}
        return True if len(shaped) == 1 else MixedDevices(f"{func}: tensors on {sorted(map(str, shaped))}")
    except RuntimeError as error:
        return MixedDevices(f"{func}: {error}")
    found = found if isinstance(found, tuple | list) else (found,)
    on = [isinstance(value, Tensor) and value.device.type == NAME for value in found]
    return on[0] if len(set(on)) == 1 else on


def _fake(value: Any) -> Any:
    """A tensor's device, shape and dtype without its numbers."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)


@contextmanager
def on_standin() -> Iterator[None]:
    """Within it there is a device `standin:0`."""
    device()
    # a module that moves keeps its parameters, as between real devices, so that tied ones stay tied
    before = torch.__future__.get_swap_module_params_on_conversion(), torch._C._only_lift_cpu_tensors()
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor() makes a tensor on the host, and then moves it
    try:
        with OnStandin():  # type: ignore[no-untyped-call]
            yield
        if ABROAD:
            raise ABROAD[0]
    finally:
        ABROAD.clear()
        torch.__future__.set_swap_module_params_on_conversion(before[0])
        torch._C._set_only_lift_cpu_tensors(before[1])


def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, *, block_mask: BlockMask, scale: float | None, enable_gqa: bool
) -> Tensor:
    """FlexAttention in its plainest form, for a device that has no compiler: all scores, and a mask."""
    parts = (block_mask.kv_num_blocks, block_mask.kv_indices, block_mask.full_kv_num_blocks)
    if {part.device for part in (*parts, block_mask.full_kv_indices) if part is not None} != {query.device}:
        raise MixedDevices("the blocks of a mask are not where the queries are")
    at = torch.arange(query.shape[2], device=query.device)
    seen = block_mask.mask_mod(at[:1], at[:1], at[:, None], at[None, :])
    out: Tensor = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, scale=scale, enable_gqa=enable_gqa
    )
    return out
