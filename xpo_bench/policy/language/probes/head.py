"""Whether the output head can be called by itself, and whether a model runs on ids alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from xpo_bench.errors import UsageError
from xpo_bench.policy.language.model_facts import body_of, vocabulary_of
from xpo_bench.policy.language.probes.trial import Trial, block, plain_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Head(NamedTuple):
    """Whether logits are exactly head(hidden states of the body), with nothing before or after the head.

    Args:
        raised: the class of the exception that the body ended with by itself, None where it ended without.
    """

    selected: bool
    raised: str | None = None


@torch.no_grad()
def probe_head(model: PreTrainedModel, device: torch.device, name: str) -> Head:
    """Compare a model's logits with its head behind its body.

    The head's output is replaced by known values, so that scaling and soft-capping show at any weights.

    Raises:
        UsageError: the model cannot be run on ids alone.
    """
    head, body = model.get_output_embeddings(), body_of(model)
    if head is None or body is None:
        return Head(False)
    ids = torch.tensor([plain_ids(model, 8)], device=device)
    seen: list[Tensor] = []
    shape = (1, ids.shape[1], vocabulary_of(model)[0])
    planted = torch.linspace(-99.0, 99.0, shape[1] * shape[2], device=device).reshape(shape)

    def plant(module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(args[0])
        return planted.to(output.dtype) if output.shape == planted.shape else output

    hook = head.register_forward_hook(plant)
    try:
        logits = model(input_ids=ids).logits
    except Exception as error:  # whatever a model raises that wants more than ids
        raise unsupported(name, model, error) from error
    finally:
        hook.remove()
    if len(seen) != 1 or not torch.equal(logits, planted.to(logits.dtype)):
        return Head(False)
    try:
        hidden = body(input_ids=ids).last_hidden_state
    except (AttributeError, TypeError) as error:  # it wants more than ids, or returns no hidden states
        return Head(False, type(error).__name__)
    except Exception as error:  # whatever a body raises that the model around it does not
        raise unsupported(name, model, error) from error
    alike = hidden.shape == seen[0].shape and torch.allclose(hidden, seen[0], rtol=1e-4, atol=1e-5)
    return Head(alike)


def require_runs(trial: Trial) -> None:
    """Ids alone give finite features, and a backward pass.

    Raises:
        UsageError: they do not.
    """
    row = trial.rows[0]
    try:
        found = trial.alone([row])
        _learns(trial)
    except Exception as error:  # whatever a model that reads no ids alone raises
        raise unsupported(trial.name, trial.network.model, error) from error
    if not torch.isfinite(found).all():
        raise UsageError(f"{trial.model} is not supported: its features of a plain row are not finite")


def _learns(trial: Trial) -> None:
    """A backward pass through all layers, which some models refuse; to the first trained tensor alone, so
    that memory is not needed for all gradients.
    """
    first = next((p for p in trial.network.model.parameters() if p.requires_grad), None)
    if first is not None and trial.network.sharding is None:
        row = trial.rows[0]
        with torch.enable_grad():
            torch.autograd.grad(trial.features([row], [block(row)]).sum(), [first], allow_unused=True)


def unsupported(name: str, model: PreTrainedModel, error: Exception, limit: int = 160) -> UsageError:
    """One line for a model that cannot be run on ids alone."""
    text = " ".join(str(error).split()).split(". ")[0]
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return UsageError(f"model {name!r} ({type(model).__name__}) is not supported: {text}")
