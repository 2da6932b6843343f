"""What an evaluation will measure, settled before any model is loaded: models, rows, and keys of both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from xpo_bench.contract.examples import Dataset
from xpo_bench.contract.settings import Budget, ModelSpec
from xpo_bench.data.adhoc import AdHoc, task_name
from xpo_bench.data.dataset import Examined, fingerprint
from xpo_bench.errors import UsageError, unknown
from xpo_bench.evaluating.judging import Judge, judge_of
from xpo_bench.evaluating.loading import Loader
from xpo_bench.evaluating.named import Place, Series, place_of, series_of
from xpo_bench.evaluating.reference import Asked
from xpo_bench.evaluating.results import trained
from xpo_bench.evaluating.rows import BaseSet, base_set, numbers_of, read
from xpo_bench.evaluating.sampling import Drawing, kl_prompts
from xpo_bench.evaluating.tokens import Readers
from xpo_bench.evaluating.weights import ADAPTER, weights_digest
from xpo_bench.evaluating.words import Words
from xpo_bench.plugins import IN_MEMORY
from xpo_bench.runner import keys
from xpo_bench.runner.plan import Cell
from xpo_bench.runner.record import Evaluated, EvaluatedCheckpoint, EvaluatedModel
from xpo_bench.runner.settings import dump
from xpo_bench.runner.task_setup import TaskSetup

BETA = re.compile(r"(?:(?P<name>[^=,]+)=)?(?P<value>[^=,]+)")


@dataclass
class Plan:
    """An evaluation.

    Args:
        words: as they were given. device: that is there.
    """

    words: Words
    device: str
    series: list[Series]
    reference: Place
    readers: Readers
    loader: Loader
    found: Examined
    base: list[BaseSet]
    judge: Judge | None
    betas: Mapping[str, float]

    @property
    def dataset(self) -> Dataset:
        return self.found.dataset

    @cached_property
    def task(self) -> str:
        return task_name(self.words.data)

    @cached_property
    def digests(self) -> dict[Place, str]:
        """Of the weights of every model."""
        out: dict[Place, str] = {}
        for place in self.places:
            if place not in out:
                out[place] = weights_digest(place.folder)
        return out

    @property
    def places(self) -> list[Place]:
        """Every model: the reference, the checkpoints, and what adapters stand on."""
        points = [p for s in self.series for p in s.points]
        return [self.reference, *points, *(self.loader.base_of(p) for p in points if p.kind == ADAPTER)]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.dataset)

    @property
    def options(self) -> dict[str, object]:
        """What was said beyond the options of an ad-hoc task."""
        words = self.words
        return {"pairs": words.pairs, "truncate": None if words.truncate == "prompt" else words.truncate}

    def drawing(self, series: Series) -> Drawing:
        """What is sampled of the checkpoints of a series."""
        words = self.words
        return Drawing(
            prompts=kl_prompts(self.dataset, series.seed, self.task, words.kl_prompts),
            samples=words.kl_samples,
            limit=words.max_new_tokens,
            seed=series.seed,
            task=self.task,
            stream=series.stream,
        )

    def point_key(self, series: Series, place: Place) -> str:
        """Of everything that decides what is measured of a checkpoint."""
        words, base = self.words, self.loader.base_of(place) if place.kind == ADAPTER else None
        return keys.digest(
            {
                "weights": [self.digests[p] for p in (place, base) if p is not None],
                "reference": self.digests[self.reference],
                "data": [self.fingerprint, words.pairs, words.truncate],
                "base": [[b.name, b.fingerprint] for b in self.base],
                "samples": [
                    words.kl_prompts, words.kl_samples, words.max_new_tokens,
                    series.seed, self.task, series.stream,
                ],
                "judge": self.judge.identity if self.judge else None,
                "computed": [words.dtype, self.device.split(":")[0], words.batch_tokens],
                "host": keys.host_source(),
            }
        )  # fmt: skip

    def cell(self, series: Series) -> Cell:
        """A series as the cell of a run."""
        beta = self.betas.get(series.name)
        algorithm = trained(series.name, beta)
        identity = {
            "evaluated": [[p.step, self.point_key(series, p)] for p in series.points],
            "name": series.name,
            "seed": series.seed,
            "beta": beta,
        }
        setup = self._setup(series.seed)
        key = keys.digest(identity)
        return Cell(key, setup, algorithm, dump(algorithm), IN_MEMORY, series.seed, 0.0, "adamw", None)

    def _setup(self, seed: int) -> TaskSetup:
        words = self.words
        adhoc = AdHoc(
            source=words.data,
            rows=words.rows,
            on_bad_row=words.on_bad_row,  # type: ignore[arg-type]
            heldout=words.heldout,
            split_by=words.split_by,
            columns=words.columns,
            rankings=words.rankings,  # type: ignore[arg-type]
        )
        most = words.pairs or max(len(self.dataset.train), len(self.dataset.heldout))
        budget = Budget(
            eval_pairs=most,
            heldout_pairs=most,
            heldout=words.heldout,
            kl_prompts=words.kl_prompts,
            kl_samples=words.kl_samples,
            max_new_tokens=words.max_new_tokens,
            dtype=words.dtype,  # type: ignore[arg-type]
        )
        model = ModelSpec(name=self.reference.shown)
        setup = TaskSetup(
            adhoc, self.task, IN_MEMORY, model, budget, dump(adhoc), words.truncate, self.device
        )
        setup.take(seed, self.dataset, self.fingerprint)
        return setup

    def asked(self, series: Sequence[Series]) -> Asked:
        """What of the reference these series need."""
        train, heldout = numbers_of(self.found)
        return Asked(
            task=self.task,
            splits={"train": (self.dataset.train, train), "heldout": (self.dataset.heldout, heldout)},
            most=self.words.pairs,
            truncate=self.words.truncate,
            base=self.base,
            drawings=[self.drawing(s) for s in series] if self.judge else [],
        )

    def evaluated(self, series: Series) -> Evaluated:
        """What the record says of a series."""
        out: Evaluated = {
            "checkpoints": [self._checkpoint(p) for p in series.points],
            "reference": self._model(self.reference),
            "samples": series.stream,
        }
        if self.words.judge is not None:
            out["judge"] = self.words.judge
        if self.base:
            out["base_data"] = [b.source for b in self.base]
        return out

    def _model(self, place: Place) -> EvaluatedModel:
        return {
            "path": place.shown,
            "weights": self.digests[place],
            "kind": place.kind,
            "revision": place.revision,
        }

    def _checkpoint(self, place: Place) -> EvaluatedCheckpoint:
        out = cast(EvaluatedCheckpoint, {**self._model(place), "step": place.step})
        if place.kind == ADAPTER:
            out["base"] = self._model(self.loader.base_of(place))
        return out


def make_plan(words: Words, device: str) -> Plan:
    """Look at everything that an evaluation names; nothing has been computed yet.

    Raises:
        UsageError: something is missing, wrong, or does not go together.
    """
    if not words.reference:
        raise UsageError(
            "--reference is missing: name the model that training began from, a path or a hub id"
        )
    if not words.data:
        raise UsageError("--data is missing: name a preference set, as `run --data` takes it")
    series = series_of(words.checkpoints, words.seed)
    reference = place_of(words.reference)
    if reference.kind == ADAPTER:
        raise UsageError(f"--reference {reference.shown}: is an adapter; want a whole model")
    points = [p for s in series for p in s.points]
    readers = Readers(reference, points, words.trust_remote_code)
    loader = Loader(
        reference=reference,
        readers=readers,
        base=place_of(words.base) if words.base is not None else None,
        dtype=words.dtype,
        device=device,
        batch_tokens=words.batch_tokens,
        trust=words.trust_remote_code,
    )
    if words.base is not None and not any(p.kind == ADAPTER for p in points):
        raise UsageError(f"--base {words.base}: no checkpoint is an adapter")
    for point in points:
        if point.kind == ADAPTER:
            loader.base_of(point)
    model = ModelSpec(
        name=str(readers.source.model),
        trust_remote_code=words.trust_remote_code,
        template_date=words.template_date,
    )
    return Plan(
        words=words,
        device=device,
        series=series,
        reference=reference,
        readers=readers,
        loader=loader,
        found=read(words, model),
        base=_base_sets(words, model),
        judge=judge_of(words.judge, device, words.trust_remote_code) if words.judge is not None else None,
        betas=parse_betas(words.beta, [s.name for s in series]),
    )


def _base_sets(words: Words, model: ModelSpec) -> list[BaseSet]:
    out = [base_set(words, source, model) for source in words.base_data]
    names = [b.name for b in out]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--base-data: two sets are called {name}; want files of different names")
    return out


def parse_betas(given: str | None, names: Sequence[str]) -> dict[str, float]:
    """`0.1` for all, or `dpo=0.1,ipo=0.05` for each, by name; a number without one is that of the others.

    Raises:
        UsageError: no positive number, an unknown name, or two numbers of one name.
    """
    out: dict[str | None, float] = {}
    for part in given.split(",") if given is not None else ():
        found = BETA.fullmatch(part.strip())
        try:
            value = float(found["value"]) if found else 0.0
        except ValueError:
            value = 0.0
        if found is None or not 0 < value < float("inf"):
            raise UsageError(f"--beta {given}: want a number above 0, or NAME=NUMBER for each name")
        name = found["name"]
        if name is not None and name not in names:
            raise UsageError(f"--beta {given}: {unknown('name', name, set(names))}")
        if name in out:
            raise UsageError(
                f"--beta {given}: two numbers {f'of {name}' if name else 'without a name'}; want one"
            )
        out[name] = value
    return {name: out.get(name, out.get(None, 0.0)) for name in names if name in out or None in out}
