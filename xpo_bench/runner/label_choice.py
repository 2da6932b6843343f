"""What training makes of votes, probabilities and ties: chosen for every task, and said in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Dataset
from xpo_bench.contract.settings import Labels, ModelSpec
from xpo_bench.data.labels import uncertain

MEANING: Mapping[Labels, str] = {
    "hard": "a row trains on its majority, ties are left out",
    "soft": "both orientations of a row, weighted by its votes or probability, ties at 1/2",
    "sampled": "one label per seed and row, drawn by its votes or probability",
}
KNOWN = "the label that each row was given; its p_chosen is what is known of it, for evaluation"
"""Said of rows whose label was drawn by a probability, or is one of those that it was counted from."""
SOFT_SINCE = 4
"""Version of the contract that says what a row of a weight other than 1 is in a loss over a batch."""


def labels_of(asked: Labels | None, dataset: Dataset, model: ModelSpec) -> Labels:
    """The labels of a task: as asked for, else soft where the rows hold them and the policy is exact.

    Hard where no row is uncertain, whatever is asked for: all three are the same there.
    """
    chosen = asked or ("soft" if dataset.labelled and model.tabular else "hard")
    return chosen if chosen != "hard" and uncertain(dataset.train) else "hard"


def misfit(cls: type[Algorithm], labels: Labels) -> str | None:
    """Why an algorithm cannot be trained on such labels, or None when it can."""
    if labels == "soft" and cls.batch_coupled and cls.spec < SOFT_SINCE:
        return (
            "its loss looks at several rows at once, and it does not say what a row of weight 1/3 is there "
            f"(batch_coupled, spec {cls.spec}; soft labels need spec {SOFT_SINCE}); "
            "want --labels hard or sampled"
        )
    return None


def told(tasks: Iterable[tuple[str, Labels, Sequence[Dataset]]]) -> str:
    """The line on the labels of a run, and what else there is where the rows leave a choice.

    Args:
        tasks: name of each task, its labels, and its rows at every seed that were read.
    """
    names: dict[Labels, dict[str, None]] = {}
    asked, known = False, False
    for name, labels, read in tasks:
        names.setdefault(labels, {})[name] = None
        asked = asked or labels != "hard" or any(dataset.labelled for dataset in read)
        known = known or any(uncertain(dataset.train) for dataset in read)
    if not asked and known:
        return f"labels: hard ({KNOWN}); --labels hard|soft|sampled chooses"
    if not asked:
        return "labels: hard (no row holds votes, a probability or a tie)"
    parts = [f"{labels} on {', '.join(of)} ({MEANING[labels]})" for labels, of in names.items()]
    return f"labels: {'; '.join(parts)}; --labels hard|soft|sampled chooses"
