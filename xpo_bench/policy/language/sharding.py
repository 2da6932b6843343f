"""One model whose layers are shared out over processes: PyTorch's fully sharded data parallelism (FSDP2).

Each process keeps a share of every layer's weights, with their gradients and the optimizer's state. A layer
is put together from all shares where a forward or backward pass needs it, and let go behind it (Rajbhandari
et al. 2020, ZeRO stage 3; Zhao et al. 2023, PyTorch FSDP). Embeddings, the last norm and the output head are
whole in every process: they are small beside the layers of a model that does not fit, and the head is called
by itself.

Putting a layer together takes all processes, so they must run equally many forward passes, in one order: what
is not the training rows of a step, such as evaluation, all of them compute alike, and a process with fewer
batches makes idle ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from xpo_bench.errors import UsageError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from transformers import PreTrainedModel


class Sharding:
    """A share of a model, in one of the processes of `torch.distributed`'s default group. Every method takes
    them all.

    Attributes:
        count: how many processes.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        self.count: int = dist.get_world_size()
        self._parameters: list[Tensor] = []

    def shard(self, model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
        """Keep this process's share of a model that is on the CPU, the same in all processes, on its device.

        Raises:
            UsageError: a model that does not say what its layers are.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        kinds = set(getattr(model, "_no_split_modules", None) or ())
        layers = [module for module in model.modules() if type(module).__name__ in kinds]
        if not layers:
            raise UsageError(
                f"task.fsdp: {type(model).__name__} does not say what its layers are; leave it out"
            )
        mesh = init_device_mesh(device.type, (self.count,))
        for layer in layers:
            whole = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            # losses are divided by the totals of a step over all processes: their gradients add up
            whole.set_gradient_divide_factor(1.0)
            whole.set_force_sum_reduction_for_comms(True)
        body = model.base_model
        kept = {p for p in body.parameters() if not _is_share(p)}
        # it shards no weights of the body itself: it orders what the layers do
        fully_shard(body, mesh=mesh, ignored_params=kept)
        for tensor in (*model.parameters(), *model.buffers()):
            if not _is_share(tensor):
                tensor.data = tensor.data.to(device)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        return model

    @torch.no_grad()
    def own(self, parameter: Tensor) -> Tensor:
        """This process's part of a parameter, in the same memory; the parameter itself where it is whole."""
        return parameter.to_local().detach() if _is_share(parameter) else parameter

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """This process's parts of the gradients of the sum of all processes' losses, one per trained
        parameter.
        """
        import torch.distributed as dist

        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        out = []
        for parameter in self._parameters:
            grad, parameter.grad = parameter.grad, None
            found = torch.zeros_like(self.own(parameter)) if grad is None else self.own(grad)
            if not _is_share(parameter):  # shares were summed where the backward pass let them go
                dist.all_reduce(found)
            out.append(found)
        return out

    def norm(self, values: Sequence[Tensor]) -> Tensor:
        """Euclidean norm of what has a value for each trained parameter, such as gradients; the same in all
        processes.
        """
        import torch.distributed as dist

        squares = torch.stack([value.detach().double().square().sum() for value in values])
        shared = torch.tensor([_is_share(p) for p in self._parameters], device=squares.device)
        # ‖g‖² = Σ over processes of the shares' squares + the squares of what every process has whole, once
        of_shares = squares[shared].sum()
        dist.all_reduce(of_shares)
        return (of_shares + squares[~shared].sum()).sqrt()

    def whole(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Those of the values that belong to parameters that every process has whole."""
        return [
            value
            for value, parameter in zip(values, self._parameters, strict=True)
            if not _is_share(parameter)
        ]

    def most(self, count: int) -> int:
        """The largest count of all processes."""
        import torch.distributed as dist

        found = torch.tensor([count])
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return int(found)

    def of_first(self, values: Tensor) -> Tensor:
        """The first process's values, in all of them."""
        import torch.distributed as dist

        dist.broadcast(values, src=0)
        return values


def _is_share(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is a part of one that processes share."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def full(tensor: Tensor) -> Tensor:
    """A tensor whole, put together where processes share it."""
    return tensor.full_tensor() if _is_share(tensor) else tensor
