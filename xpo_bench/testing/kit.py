"""The kit: every check under its name, and what to do when it fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.errors import UsageError
from xpo_bench.plugins import first_paragraph
from xpo_bench.testing import declared, loss, state, training
from xpo_bench.testing.verdicts import CheckFailed, NotApplicable, Raised

Verdict = Literal["ok", "failed", "skipped"]
FIX = "Fix the exception; the check did not get to what it states."
"""The remedy of an exception; the remedy of a check is for its own finding."""


@dataclass(frozen=True)
class Check:
    """One property that every algorithm must have.

    Args:
        name: in lists, and in `expected_failed_checks`. remedy: what to do when it fails.
        function: takes an algorithm and raises CheckFailed, or NotApplicable.
    """

    name: str
    function: Callable[[Algorithm], None]
    remedy: str

    @property
    def statement(self) -> str:
        """The property, in one sentence."""
        return first_paragraph(self.function.__doc__ or "")


CHECKS: tuple[Check, ...] = (
    Check("declaration", declared.declaration, "Fix the class variable; docs/plugins.md lists them."),
    Check(
        "config-round-trip",
        declared.config_round_trip,
        "Use bool, int, float, str or Literal fields with finite defaults, "
        "and compute nothing in __post_init__.",
    ),
    Check(
        "fields-documented",
        declared.fields_documented,
        'Annotate the field: Annotated[float, Gt(0), Doc("KL strength, 1/nats")].',
    ),
    Check(
        "options-matter",
        declared.options_matter,
        "Use the field in loss(), stages() or shape_data(), or remove it.",
    ),
    Check(
        "stage-shares", declared.stage_shares, "Let the shares of stages() sum to 1, e.g. 1/n for each of n."
    ),
    Check(
        "completions-match-groups",
        declared.completions_match,
        "Return one Completion(prompt, text) per example for every group, "
        "and one number per example for every column.",
    ),
    Check(
        "loss-shape", loss.shape, "Return per-example values and reduce nothing: the runner takes the mean."
    ),
    Check(
        "loss-finite", loss.finite, "Look for a logarithm, root or quotient of what can be zero or negative."
    ),
    Check(
        "finite-at-reference",
        loss.finite_at_reference,
        "All log-ratios are 0 here: divide by nothing that vanishes, and take no root or norm of it.",
    ),
    Check(
        "extremes-finite",
        loss.extremes,
        "Use logsigmoid(x) for log(sigmoid(x)), softplus, log1p, and sigmoid(−x) for 1 − sigmoid(x).",
    ),
    Check(
        "bfloat16-finite",
        loss.bfloat16,
        "Compute 1 − exp(x) as −expm1(x), and give small differences float32.",
    ),
    Check(
        "declared-is-read",
        loss.declared_is_read,
        "Remove the group or the reference from groups: it is computed for nothing.",
    ),
    Check(
        "undeclared-is-not-read",
        loss.undeclared_is_not_read,
        "Declare it in groups: the runner scores only what is declared.",
    ),
    Check(
        "gradient-reaches-policy",
        loss.gradient,
        "Detach no group that should train; declare grad=False on groups that are read only.",
    ),
    Check(
        "off-mask-invariant",
        loss.off_mask,
        "Use scores.sum, scores.mean and scores.length, or masked_fill before every sum.",
    ),
    Check(
        "absent-rows-invariant",
        loss.absent_rows,
        "Weigh sums over the batch by step.weight, and divide by step.totals.",
    ),
    Check("deterministic", loss.deterministic, "Draw nothing and keep no state in loss()."),
    Check(
        "inputs-not-mutated",
        loss.inputs_kept,
        "Use x + y and torch.where; no method that ends in _, no assignment to an index.",
    ),
    Check(
        "runs-broadcast",
        loss.runs_axis,
        "Reduce along the last axis only; no float(), .item(), or branch on a value.",
    ),
    Check("row-order-invariant", loss.row_order, "Let no value depend on an example's place in the batch."),
    Check(
        "batch-coupling-declared",
        loss.batch_coupling,
        "Set batch_coupled = True if examples are meant to depend on one another, "
        "else divide by step.totals only.",
    ),
    Check(
        "future-fields-ignored",
        loss.future_fields,
        "Read fields, groups and columns of the step by name, never all of them.",
    ),
    Check(
        "state-well-formed",
        state.well_formed,
        "Return plain finite numbers by name from state(), "
        "and for the same names one number per run from next_state().",
    ),
    Check(
        "state-is-read", state.is_read, "Make a constant name a field, and remove a name that nothing reads."
    ),
    Check(
        "state-pure",
        state.pure,
        "Compute the next state from the step alone: x + y, no method that ends in _, no self.x = y.",
    ),
    Check("state-runs-broadcast", state.runs_axis, "Reduce along the last axis only, with keepdim=True."),
    Check(
        "state-of-the-whole-step",
        state.whole_step,
        "Weigh sums over the rows by step.weight, and take each of them through step.all_reduce.",
    ),
    Check(
        "implied-preference",
        loss.implied_preference,
        "Return σ of the margin between chosen and rejected, or None.",
    ),
    Check(
        "learns",
        training.learns,
        "Look for a sign: the loss has to fall when the chosen completion rises against the rejected one.",
    ),
    Check(
        "same-seed-same-curve",
        training.same_seed,
        "Draw from tools.rng only, and keep no state between runs.",
    ),
    Check(
        "resume-equals-uninterrupted",
        training.resume,
        "Keep no state between runs, and depend on nothing but the step and the fields.",
    ),
    Check(
        "import-time",
        declared.import_time,
        "Import heavy packages other than torch inside the functions that need them.",
    ),
)


@dataclass(frozen=True)
class Finding:
    """A verdict, one line on why it is not ok, and whether an exception of the algorithm was the reason."""

    check: Check
    verdict: Verdict
    message: str = ""
    raised: bool = False

    @property
    def remedy(self) -> str:
        """What to do when it failed."""
        return FIX if self.raised else self.check.remedy


@dataclass(frozen=True)
class BoundCheck:
    """A check of one algorithm. Calling it raises CheckFailed or NotApplicable; `finding()` tells."""

    check: Check
    algorithm: Algorithm

    @property
    def name(self) -> str:
        return self.check.name

    def __call__(self) -> None:
        """Run the check.

        Raises:
            CheckFailed: the algorithm breaks it, or raised something itself. NotApplicable: it says nothing
            here.
        """
        try:
            self.check.function(self.algorithm)
        except (CheckFailed, NotApplicable):
            raise
        except Exception as error:
            raise Raised(_told(error)) from error

    def finding(self) -> Finding:
        """Run the check and say what came of it."""
        try:
            self()
        except CheckFailed as failed:
            return Finding(self.check, "failed", str(failed), raised=isinstance(failed, Raised))
        except NotApplicable as reason:
            return Finding(self.check, "skipped", str(reason))
        return Finding(self.check, "ok")


def _told(error: Exception) -> str:
    """An exception in one line, with the last place in it that is not the suite's own."""
    own = str(Path(__file__).parents[1])
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith(own) and "torch" not in f.filename
    ]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said or 'no message'}{where}"


def instance(algorithm: Algorithm | type[Algorithm]) -> Algorithm:
    """The algorithm, at its defaults when a class is given."""
    if isinstance(algorithm, Algorithm):
        return algorithm
    try:
        return algorithm()
    except TypeError as error:
        raise UsageError(
            f"{algorithm.__name__}: cannot be made without arguments, every field needs a default ({error})"
        ) from None


def checks_for(algorithm: Algorithm | type[Algorithm]) -> Iterator[BoundCheck]:
    """Every check of the kit, bound to an algorithm; a class stands for its defaults.

    Example:
        >>> for check in checks_for(MyDPO):
        ...     print(check.name, check.finding().verdict)
    """
    made = instance(algorithm)
    for check in CHECKS:
        yield BoundCheck(check, made)
