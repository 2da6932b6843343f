"""The threads that torch computes on."""

from __future__ import annotations

import torch


class one_thread:
    """One thread, on which tiny computations are faster; afterwards torch's settings are what they were."""

    def __enter__(self) -> None:
        self.before = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        threads, dtype, grad = self.before
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
