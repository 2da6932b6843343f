"""The language model of one task: loaded once, with the reference scores that all its cells share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from xpo_bench.errors import UnreachableError, UsageError
from xpo_bench.policy.language.adapters import Adapters
from xpo_bench.policy.language.causal_lm import CausalLM
from xpo_bench.policy.language.copies import Copies
from xpo_bench.policy.language.ensemble import Ensemble
from xpo_bench.policy.language.probes.joining import ON_EXPERTS, joins_adapters
from xpo_bench.policy.language.saving import save
from xpo_bench.policy.language.sharding import Sharding
from xpo_bench.random_streams import derive
from xpo_bench.runner.references import References, fingerprint
from xpo_bench.runner.saved_policies import SavedPolicy
from xpo_bench.runner.task_setup import TaskSetup
from xpo_bench.train.data_parallel import ALONE, Processes
from xpo_bench.train.job import Job, Outcome, Progress
from xpo_bench.train.reference import Scorer
from xpo_bench.train.reference_scores import ReferenceScorer, SameForAll
from xpo_bench.train.trainer import GroupTrainer
from xpo_bench.train.warm_start import initial_identity, prepare_initial


class LanguageModels:
    """The model of one task and its initial weights, per seed where these depend on it.

    Args:
        references: where reference scores are kept for later runs; None keeps them in memory alone.
        processes: those that train the model together; what the first one has scored is kept.
    """

    def __init__(
        self, setup: TaskSetup, references: Path | None = None, processes: Processes = ALONE
    ) -> None:
        self.setup, self.references, self.processes = setup, references, processes
        self.policy: CausalLM | None = None
        self.initial: dict[object, dict[str, Tensor]] = {}
        self.cache: dict[object, References] = {}
        self.loaded: object = None
        self.apart: str | None = None

    def train(
        self,
        jobs: Sequence[Job],
        progress: Progress | None,
        observed: Callable[[int, int, dict[str, float]], None],
        saved: Sequence[SavedPolicy | None] = (),
    ) -> tuple[list[Outcome], Mapping[str, object]]:
        """Train one job, or several as an ensemble, each from the task's initial policy at its seed.

        Args:
            saved: where the policies go, one for each job.
        """
        starts = [self._initial(job) for job in jobs]
        assert self.policy is not None
        policy, scorer = self._several(starts) if len(jobs) > 1 else self._one(starts[0])
        trainer = GroupTrainer(
            policy,
            jobs,
            scorer,
            truncate=self.setup.truncate,
            device=self.setup.device,
            progress=progress,
            on_evaluation=observed,
            processes=self.processes,
        )
        try:
            outcomes = trainer.run()
            self._save(policy, outcomes, starts, saved)
            return outcomes, policy.describe()
        finally:  # scores are whole one by one, whatever became of the cell that asked for them
            for known in self.cache.values() if self.processes.first else ():
                known.save()

    def _save(
        self,
        policy: CausalLM | Copies,
        outcomes: Sequence[Outcome],
        starts: Sequence[object],
        saved: Sequence[SavedPolicy | None],
    ) -> None:
        """Write the policies that have not diverged, and those that they began from where nobody has them."""
        for r, place in enumerate(saved):
            if place is None or (outcomes and outcomes[r].status != "ok"):
                continue
            with policy.member(r) as model:
                self._write(model, place.folder, place.origin)
                if place.initial is not None:
                    with model.using(self.initial[starts[r]]):
                        about = {"task": place.origin["task"], "seed": place.origin["seed"]}
                        self._write(model, place.initial, about)

    def _write(self, model: CausalLM, folder: Path, origin: Mapping[str, object]) -> None:
        if self.processes.first or model.sharding:
            save(model, folder, origin, writes=self.processes.first)

    def _one(self, start: object) -> tuple[CausalLM, ReferenceScorer]:
        """The model at an initial policy, and what scores its reference."""
        assert self.policy is not None
        self.policy.restore(self.initial[start])
        return self.policy, ReferenceScorer(self.policy, self.initial[start], self._known(start))

    def _several(self, starts: Sequence[object]) -> tuple[Copies, Scorer | None]:
        """Copies at their initial policies, and what scores one reference for all, where they have one.

        Adapters on one model go through it together where it can be computed so.
        """
        assert self.policy is not None
        states = [self.initial[start] for start in starts]
        if not self.setup.model.lora_rank:
            return Ensemble(self.policy, states), None
        if self.apart is None:
            self.apart = joins_adapters(self.policy) or ""
        if self.apart == ON_EXPERTS:
            raise UsageError(
                "--lora targets: adapters on experts train one run at a time; leave out task.ensemble"
            )
        if self.apart:
            mapped = Ensemble(self.policy, states)
            mapped.notes["adapters"] = f"apart ({self.apart})"
            return mapped, None
        copies = Adapters(self.policy, states)
        # from one start the reference is one policy for all copies
        return copies, SameForAll(self._one(starts[0])[1]) if len(set(starts)) == 1 else None

    def _known(self, start: object) -> References:
        """The reference scores of an initial policy, which the model is at this moment."""
        if start not in self.cache:
            assert self.policy is not None
            name = f"{fingerprint(self.policy, self.setup.truncate)}.parquet"
            self.cache[start] = References(self.references and self.references / name)
        return self.cache[start]

    def _initial(self, job: Job) -> object:
        """The identity of the weights that a job starts from, which are there from now on."""
        identity = initial_identity(self.setup.model, self.setup.budget, job)
        random = self.setup.model.name == "tiny"
        # A random model is initialised anew for every seed; a pretrained one is loaded once and restored.
        # Adapters are restored alone: the random model that they stand on has to be that of their seed.
        other = identity not in self.initial or (self.setup.model.lora_rank and identity != self.loaded)
        if self.policy is None or (random and other):
            try:
                self.policy = CausalLM.load(
                    self.setup.model,
                    init_seed=derive(job.seed, job.task, "init") if random else 0,
                    dtype=self.setup.budget.dtype,
                    device=self.setup.device,
                    checkpointing=self.setup.budget.checkpointing,
                    packing=self.setup.budget.packing,
                    sharding=Sharding() if self.setup.budget.fsdp else None,
                )
            except UnreachableError as error:  # nothing can run without the model that the command names
                raise UsageError(str(error)) from error
            self.pristine, self.loaded = self.policy.snapshot(), identity
        if identity not in self.initial:
            self.policy.restore(self.pristine)
            if self.processes.first or self.policy.sharding:
                prepare_initial(self.policy, job, self.setup.truncate)
            if not self.policy.sharding:
                # warm starts are computed by one process, and every other one takes its weights bit for bit
                self.processes.copy_first(self.policy.parameters())
            self.initial[identity] = self.policy.snapshot()
        return identity
