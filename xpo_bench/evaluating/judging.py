"""`--judge`: what says how good a sample is, a Python function or a sequence-classification model."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from xpo_bench.contract.examples import Text
from xpo_bench.errors import UsageError
from xpo_bench.evaluating.named import Place, place_of
from xpo_bench.runner import keys

FORMS = (
    "want judge(prompt, completion) -> reward, judge(prompts, completions) -> rewards as TRL's reward "
    "functions, or judge(prompt, a, b) -> probability that a is better"
)
BATCH = 16
"""Texts that a reward model reads at a time."""


class Judge(Protocol):
    """Judges samples."""

    @property
    def identity(self) -> str:
        """What decides its judgements, for the key of what is measured."""
        ...

    @property
    def kind(self) -> Literal["reward", "pair"]:
        """What it says of samples."""
        ...

    def rewards(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """A reward of each completion; of judges of kind `reward`."""
        ...

    def wins(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> list[float]:
        """Probability that each first completion is better than its second; of judges of kind `pair`."""
        ...


def judge_of(given: str, device: str, trust: bool) -> Judge:
    """The judge of a word: `module:function` or `file.py:function`, else a reward model.

    Raises:
        UsageError: there is no such function or model, or it is none of the forms.
    """
    module, colon, name = given.rpartition(":")
    if colon and module and (name.isidentifier() or module.endswith(".py")) and not Path(given).exists():
        return _function(given, module, name)
    return RewardModelJudge(given, device, trust)


@dataclass(frozen=True)
class FunctionJudge:
    """A Python function as a judge."""

    given: str
    function: Callable[..., Any]
    form: Literal["one", "batch", "pair"]
    identity: str

    @property
    def kind(self) -> Literal["reward", "pair"]:
        return "pair" if self.form == "pair" else "reward"

    def rewards(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        if self.form == "batch":
            found = self._called(prompts=list(prompts), completions=list(completions))
            try:
                values = list(found)
            except TypeError:
                raise UsageError(
                    f"--judge {self.given}: returned {_short(found)}; want a list of rewards"
                ) from None
            if len(values) != len(prompts):
                raise UsageError(
                    f"--judge {self.given}: returned {len(values)} rewards for {len(prompts)} completions; "
                    "want one for each"
                )
        else:
            values = [self._called(p, c) for p, c in zip(prompts, completions, strict=True)]
        return [self._number(value, c) for value, c in zip(values, completions, strict=True)]

    def wins(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> list[float]:
        out = []
        for prompt, a, b in zip(prompts, first, second, strict=True):
            value = self._number(self._called(prompt, a, b), a)
            if not 0 <= value <= 1:
                raise UsageError(
                    f"--judge {self.given}: returned {value:g}; want the probability that the "
                    "first is better: "
                    "0, 1, ½ for a tie, or between"
                )
            out.append(value)
        return out

    def _called(self, *words: object, **named: object) -> Any:
        try:
            return self.function(*words, **named)
        except Exception as error:
            raise UsageError(
                f"--judge {self.given}: raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error

    def _number(self, value: object, about: str) -> float:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise UsageError(
                f"--judge {self.given}: returned {_short(value)} for {about[:40]!r}; want a number"
            ) from None
        if not math.isfinite(number):
            raise UsageError(
                f"--judge {self.given}: returned {number} for {about[:40]!r}; want a finite number"
            )
        return number


def _function(given: str, module: str, name: str) -> FunctionJudge:
    file = module.endswith(".py")
    try:
        if file:
            found = _from_file(Path(module), given)
        else:
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())  # where the command is given, as `python -m` would
            found = importlib.import_module(module)
        function = getattr(found, name)
    except ModuleNotFoundError as error:
        raise UsageError(f"--judge {given}: no module {error.name!r} can be imported from here") from None
    except AttributeError:
        raise UsageError(f"--judge {given}: {module} has no {name!r}") from None
    except UsageError:
        raise
    except Exception as error:  # whatever the module does when it is imported
        raise UsageError(f"--judge {given}: importing raised {type(error).__name__}: {error}") from error
    if not callable(function):
        raise UsageError(f"--judge {given}: is no function; {FORMS}")
    return FunctionJudge(given, function, _form(given, function), f"{given} {_source(function)}")


def _from_file(path: Path, given: str) -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    if not path.is_file():
        raise UsageError(f"--judge {given}: no such file")
    spec = spec_from_file_location(f"xpo_bench_judge_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _source(function: Callable[..., object]) -> str:
    return keys.source(function) if hasattr(function, "__module__") else repr(type(function))


def _form(given: str, function: Callable[..., object]) -> Literal["one", "batch", "pair"]:
    """How a function wants to be called."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise UsageError(f"--judge {given}: its arguments cannot be told; {FORMS}") from None
    more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if "completions" in parameters and ("prompts" in parameters or more):
        return "batch"
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    forced = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if forced or len(needed) not in (2, 3):
        raise UsageError(f"--judge {given}: takes {inspect.signature(function)}; {FORMS}")
    return "one" if len(needed) == 2 else "pair"


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:59] + "…"


class RewardModelJudge:
    """A sequence-classification model with one output: the reward of prompt and completion as one text."""

    kind: Literal["reward", "pair"] = "reward"

    def __init__(self, given: str, device: str, trust: bool) -> None:
        from xpo_bench.evaluating.loading import release
        from xpo_bench.evaluating.weights import weights_digest

        self.given, self.device, self.trust = given, device, trust
        try:
            self.place: Place = place_of(given)
        except UsageError as error:
            raise UsageError(f"--judge {error}; or name a function, module:name") from error
        self._require_head()
        self._loaded()
        release(device)
        self.identity = weights_digest(self.place.folder)

    def rewards(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        import torch

        from xpo_bench.evaluating.loading import release
        from xpo_bench.policy.language.model_facts import context_length

        tokenizer, model, padded = self._loaded()
        limit = context_length(model.config, tokenizer)
        texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        # a template has written what the tokenizer would put before a text
        lead = [not (isinstance(prompt, Text) and prompt.rendered) for prompt in prompts]
        out = [0.0] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: (lead[i], len(texts[i])))
        for some in _batches(order, lead, BATCH if padded else 1):
            with torch.inference_mode():
                read = tokenizer(
                    [texts[i] for i in some],
                    return_tensors="pt",
                    padding=len(some) > 1,
                    truncation=True,
                    max_length=limit,
                    add_special_tokens=lead[some[0]],
                )
                found = model(**read.to(model.device)).logits[:, 0].float().tolist()
            for i, value in zip(some, found, strict=True):
                if not math.isfinite(value):
                    raise UsageError(f"--judge {self.given}: its reward of a sample is {value}")
                out[i] = value
        del model
        release(self.device)
        return out

    def wins(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> list[float]:
        raise TypeError("a reward model gives rewards")

    def _require_head(self) -> None:
        """Refuse a model whose configuration says that it has no head for rewards."""
        from transformers import AutoConfig

        from xpo_bench.policy.language.pretrained import first_sentence, quiet

        try:
            with quiet():
                config = AutoConfig.from_pretrained(
                    str(self.place.folder), local_files_only=True, trust_remote_code=self.trust
                )
        except (OSError, ValueError) as error:
            raise UsageError(f"--judge {self.given}: cannot be read: {first_sentence(error)}") from error
        if config.num_labels != 1:
            made = ", ".join(config.architectures or ["no architecture"])
            raise UsageError(
                f"--judge {self.given}: has {config.num_labels} outputs ({made}), not the one of a "
                "reward model; "
                "want a sequence-classification model with num_labels=1"
            )

    def _loaded(self) -> tuple[Any, Any, bool]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from xpo_bench.policy.language.pretrained import first_sentence, quiet

        folder = str(self.place.folder)
        words = {"local_files_only": True, "trust_remote_code": self.trust}
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(folder, **words)
                model, info = AutoModelForSequenceClassification.from_pretrained(
                    folder, use_safetensors=True, dtype="auto", output_loading_info=True, **words
                )
        except Exception as error:  # models fail in many ways
            raise UsageError(
                f"--judge {self.given}: cannot be loaded as a sequence-classification model: "
                f"{first_sentence(error)}"
            ) from error
        lacking = sorted(info.get("missing_keys", ()))
        if lacking:
            raise UsageError(
                f"--judge {self.given}: has no head for rewards: its weights lack {lacking[0]}; want a "
                "sequence-classification model"
            )
        # the reward is read at the last token that is no padding; without a token for that, each text goes
        # alone
        padded = tokenizer.pad_token is not None and model.config.pad_token_id == tokenizer.pad_token_id
        return tokenizer, model.to(self.device).eval(), padded


def _batches(order: Sequence[int], lead: Sequence[bool], size: int) -> Iterator[list[int]]:
    """Texts of one kind, so many at a time."""
    for kind in (False, True):
        same = [i for i in order if lead[i] == kind]
        yield from (same[start : start + size] for start in range(0, len(same), size))
