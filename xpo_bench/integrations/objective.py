"""Which algorithm a trainer is to train with, and what of the contract it cannot do."""

from __future__ import annotations

from collections.abc import Mapping

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Pair, Single
from xpo_bench.errors import UsageError
from xpo_bench.plugins import check_class, load
from xpo_bench.runner.settings import dump, names, validate


def choose(algorithm: str | type[Algorithm] | Algorithm, settings: Mapping[str, object]) -> Algorithm:
    """The algorithm that a trainer is given, with its hyperparameters.

    Args:
        algorithm: a plugin's name, a class that need not be packaged, or an instance, whose fields are its
            hyperparameters.
        settings: hyperparameters by the names that `--set` takes. `beta`, the word of trainers, stands for
            the field that an algorithm declares as its regulariser where it has no `beta` (IPO's τ).

    Raises:
        UsageError: an unknown name, a class that is no algorithm, an unknown hyperparameter or a value out of
            its bounds.
    """
    if isinstance(algorithm, Algorithm):
        if settings:
            raise UsageError(
                f"algorithm={algorithm!r} is an instance and has its hyperparameters: "
                f"{', '.join(settings)} cannot be given beside it"
            )
        return validate(type(algorithm), dump(algorithm), type(algorithm).name)
    if isinstance(algorithm, str):
        cls = load().algorithm(algorithm)[0]
    else:
        try:
            check_class(algorithm, "algorithm", "algorithm=", Algorithm)
        except (TypeError, ValueError) as error:
            raise UsageError(f"algorithm={algorithm!r}: {error}") from None
        cls = algorithm
    return validate(cls, _in_own_words(cls, settings), cls.name)


def strength(algorithm: Algorithm) -> float | None:
    """β of the rewards β·log-ratio that a trainer logs: the field `beta`, else the declared regulariser."""
    value = getattr(algorithm, _strength_field(type(algorithm)) or "", None)
    return None if value is None else float(value)


def _strength_field(cls: type[Algorithm]) -> str | None:
    if "beta" in names(cls):
        return "beta"
    # +1: the field holds the policy the nearer to the reference the larger it is, as β does
    return cls.regulariser[0] if cls.regulariser is not None and cls.regulariser[1] > 0 else None


def _in_own_words(cls: type[Algorithm], settings: Mapping[str, object]) -> dict[str, object]:
    field = _strength_field(cls)
    if field in (None, "beta") or "beta" not in settings:
        return dict(settings)
    if field in settings:
        raise UsageError(f"{cls.name}: beta stands for {field} here, and both are given; name one of them")
    return {field if name == "beta" else name: value for name, value in settings.items()}


def require_trainable(algorithm: Algorithm) -> None:
    """Refuse by name what a trainer over rows of tokenised pairs cannot do.

    Raises:
        UsageError: one line, which names the algorithm and what of it there is no way to.
    """
    reason = _obstacle(algorithm)
    if reason is not None:
        raise UsageError(
            f"{algorithm.name}: {reason}; `xpo-bench run --algos {algorithm.name}` trains with it"
        )


def _obstacle(algorithm: Algorithm) -> str | None:
    if algorithm.requires:
        needed = {
            "enumerable": "an enumerable policy",
            "generate": "samples of the policy",
            "reward": "a reward",
            "tangent": "the policy's tangent space",
        }
        wanted = " and ".join(needed.get(name, name) for name in sorted(algorithm.requires))
        return f"PreferenceTrainer has rows of pairs alone, and this needs {wanted}"
    stages = algorithm.stages()
    if any(stage.solve for stage in stages):
        return "PreferenceTrainer makes optimizer steps, and this sets the policy by solve()"
    if any(stage.refresh is not None for stage in stages):
        return "PreferenceTrainer has one data set, and a stage of this makes its data anew"
    if len(stages) > 1:
        return (
            f"PreferenceTrainer makes one stage, and this has {len(stages)}; "
            "train a trainer per stage, each from the model of the one before, with one stage"
        )
    if algorithm.accepts not in (Pair, Single):
        return f"PreferenceTrainer has pairs, and this accepts {algorithm.accepts.__name__}"
    for name, group in algorithm.groups.items():
        if group.token_kl:
            return f"the group {name!r} declares token_kl, and TRL's fused head returns no distributions"
        if group.mismatched and group.grad:
            return (
                f"the mismatched group {name!r} is trained (grad=True), and PreferenceTrainer only scores it"
            )
    return None
