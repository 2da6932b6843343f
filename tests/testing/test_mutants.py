"""Every check of the kit catches an algorithm that is made to fail it; a sound algorithm passes all."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from xpo_bench import Algorithm
from xpo_bench.testing import CHECKS, CheckFailed, checks_for


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


m = module_of(Path(__file__).parent / "mutants.py")

SLOW = "import-time"
# mutant -> the check that is to catch it
CAUGHT: dict[type[Algorithm], str] = {
    m.WrongField: "declaration",
    m.InfiniteDefault: "config-round-trip",
    m.Undocumented: "fields-documented",
    m.NoUnit: "fields-documented",
    m.IgnoredOption: "options-matter",
    m.ThreeHalves: "stage-shares",
    m.OneGroupMore: "completions-match-groups",
    m.MeanOverTheBatch: "loss-shape",
    m.RootOfMargin: "loss-finite",
    m.NormOfMargin: "finite-at-reference",
    m.LogOfSigmoid: "extremes-finite",
    m.NaiveOdds: "bfloat16-finite",
    m.UnreadReference: "declared-is-read",
    m.UndeclaredReference: "undeclared-is-not-read",
    m.Detached: "gradient-reaches-policy",
    m.HalfDetached: "gradient-reaches-policy",
    m.TrainsReference: "gradient-reaches-policy",
    m.SumsPadding: "off-mask-invariant",
    m.MeanWithAbsentRows: "absent-rows-invariant",
    m.Counts: "deterministic",
    m.SumsInPlace: "inputs-not-mutated",
    m.ReadsOneBeta: "runs-broadcast",
    m.PlaceInBatch: "row-order-invariant",
    m.UndeclaredCoupling: "batch-coupling-declared",
    m.ClaimsCoupling: "batch-coupling-declared",
    m.UndeclaredZ0: "batch-coupling-declared",
    m.CopiesTheStep: "future-fields-ignored",
    m.EveryColumn: "future-fields-ignored",
    m.ImpliesLogit: "implied-preference",
    m.WrongSign: "learns",
    m.GlobalShuffle: "same-seed-same-curve",
    m.LooksAtOtherRuns: "resume-equals-uninterrupted",
    m.StateWithoutSpec: "declaration",
    m.StateOfTensors: "state-well-formed",
    m.UnreadState: "state-is-read",
    m.ConstantState: "state-is-read",
    m.StateInPlace: "state-pure",
    m.StateOfAllRuns: "state-runs-broadcast",
    m.StateOfOneProcess: "state-of-the-whole-step",
    m.StateWithAbsentRows: "state-of-the-whole-step",
    m.TokenKLWithoutSpec: "declaration",
    m.UnreadTokenKL: "declared-is-read",
    m.UndeclaredTokenKL: "undeclared-is-not-read",
    m.SumsTokenKLOfPadding: "off-mask-invariant",
    m.ClaimsTokenKL: "implied-preference",
}


TRAINED = frozenset({"learns", "same-seed-same-curve", "resume-equals-uninterrupted"})
DIVERGES = TRAINED - {"same-seed-same-curve"}  # twice in the same way
# what else cannot but notice a mutant, mostly because the runner refuses to train it
ALSO: dict[type[Algorithm], frozenset[str]] = {
    m.InfiniteDefault: frozenset({"resume-equals-uninterrupted"}),
    m.ThreeHalves: TRAINED,
    m.OneGroupMore: TRAINED,
    m.MeanOverTheBatch: TRAINED | {"absent-rows-invariant", "row-order-invariant", "batch-coupling-declared"},
    m.RootOfMargin: DIVERGES | {"finite-at-reference", "extremes-finite", "bfloat16-finite"},
    m.NormOfMargin: DIVERGES | {"extremes-finite", "bfloat16-finite"},
    m.UndeclaredReference: TRAINED,
    m.Detached: TRAINED,
    m.Counts: frozenset({"same-seed-same-curve"}),
    m.GlobalShuffle: frozenset({"deterministic", "resume-equals-uninterrupted"}),
    m.LooksAtOtherRuns: frozenset({"runs-broadcast"}),
    m.UndeclaredTokenKL: TRAINED,
    m.ClaimsTokenKL: TRAINED,
    m.StateOfAllRuns: frozenset({"resume-equals-uninterrupted"}),
}


def failing(algorithm: type[Algorithm]) -> dict[str, str]:
    made = algorithm if "__dataclass_fields__" in vars(algorithm) else dataclass(frozen=True)(algorithm)
    findings = [check.finding() for check in checks_for(made) if check.name != SLOW]
    return {f.check.name: f.message for f in findings if f.verdict == "failed"}


@pytest.mark.parametrize("mutant", CAUGHT, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught_by_the_check_that_is_meant_for_it_alone(mutant: type[Algorithm]) -> None:
    found = failing(mutant)
    assert sorted(found) == sorted({CAUGHT[mutant]} | ALSO.get(mutant, frozenset()))


def test_every_check_has_a_mutant() -> None:
    assert {*CAUGHT.values(), SLOW} == {check.name for check in CHECKS}


@pytest.mark.parametrize("sound", [m.Sound, m.Remembering, m.Anchored], ids=lambda sound: sound.__name__)
def test_a_sound_algorithm_passes(sound: type[Algorithm]) -> None:
    assert failing(sound) == {}


SLEEPY = """
import time
from dataclasses import dataclass
from typing import ClassVar
from xpo_bench import Algorithm

while time.process_time() < {until}:  # as long again as the interpreter and torch have taken
    pass

@dataclass(frozen=True)
class Sleepy(Algorithm):
    name: ClassVar[str] = "sleepy"
"""


def test_a_slow_import_is_caught_and_a_quick_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "xpo_bench.testing.declared.IMPORT_BOUND_S", 0.0
    )  # half of what torch takes, on any machine
    (check,) = (c for c in CHECKS if c.name == SLOW)
    path = tmp_path / "sleepy.py"
    path.write_text(SLEEPY.replace("{until}", "0"), "utf-8")
    quick = module_of(path).Sleepy()
    check.function(quick)
    path.write_text(
        SLEEPY.replace("{until}", "2 * began").replace(
            "import time", "import time; began = time.process_time()"
        ),
        "utf-8",
    )
    with pytest.raises(CheckFailed, match=r"importing sleepy takes .* s beyond torch"):
        check.function(quick)
