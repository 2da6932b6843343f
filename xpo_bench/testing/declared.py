"""Checks of an algorithm's declarations: class variables, fields, stages, examples and module."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

from pydantic import ValidationError
from typing_extensions import Doc

from xpo_bench.contract.algorithm import Algorithm
from xpo_bench.contract.examples import Completion, Pair, Single
from xpo_bench.contract.scoring import Group
from xpo_bench.contract.settings import Stage
from xpo_bench.plugins import check_class
from xpo_bench.runner.settings import adapter, dump, names
from xpo_bench.testing.steps import View, make_step, rows, shaped, views
from xpo_bench.testing.variations import variations
from xpo_bench.testing.verdicts import CheckFailed, NotApplicable, require
from xpo_bench.testing.world import Drifted

ABILITIES = frozenset({"enumerable", "generate", "reward", "tangent"})
UNITS = ("nats", "dimensionless", "probability", "fraction", "share", "ratio", "tokens", "steps", "reward")
"""Words, one of which stands in the sentence of a field that is a float."""
IMPORT_BOUND_S = 1.0
"""Seconds of processor time that a plugin's import may take beyond torch; half of torch's own where that is
more.
"""


def declaration(algorithm: Algorithm) -> None:
    """The class variables are well formed, and name fields that exist."""
    cls = type(algorithm)
    try:
        check_class(cls, "algorithm", "xpo_algorithms", Algorithm)
    except (TypeError, ValueError) as error:
        raise CheckFailed(str(error)) from None
    known = {f.name for f in fields(algorithm)}
    require(cls.accepts in (Pair, Single), f"accepts is {cls.accepts!r}")
    require(
        bool(cls.groups) and all(isinstance(g, Group) for g in cls.groups.values()), "groups holds no Group"
    )
    require(not cls.ties or cls.accepts is Pair, "declares ties, which are of pairs, and accepts Single")
    needed, why = _needed_spec(cls)
    require(cls.spec >= needed, f"declares spec {cls.spec}, but {why} is of version {needed} of the contract")
    require(cls.requires <= ABILITIES, f"requires names {sorted(cls.requires - ABILITIES)}")
    require(bool(cls.source.strip()), "source is empty")
    if cls.regulariser is not None:
        require(
            cls.regulariser[0] in known,
            f"regulariser names the field {cls.regulariser[0]!r}, which there is not",
        )
        require(cls.regulariser[1] in (-1, 1), f"the direction of regulariser is {cls.regulariser[1]!r}")
    require(
        cls.kl_strength is None or cls.kl_strength in known,
        f"kl_strength names the field {cls.kl_strength!r}",
    )
    written = dict(zip([f.name for f in fields(algorithm)], names(cls), strict=False))
    for field, ends in cls.search_space.items():
        require(field in known, f"search_space names the field {field!r}, which there is not")
        for end in ends:
            try:
                adapter(cls).validate_python({written[field]: end})
            except ValidationError:
                raise CheckFailed(
                    f"search_space: {field} = {end} is refused by the field's own bounds"
                ) from None


def _needed_spec(cls: type[Algorithm]) -> tuple[int, str]:
    """The first version of the contract that has all that the class uses, and what that is."""
    if cls.ties:
        return 4, "ties"
    if "tangent" in cls.requires:
        return 3, "Tools.fit_tangent"
    if cls.state is not Algorithm.state or cls.next_state is not Algorithm.next_state:
        return 2, "state()"
    if any(group.token_kl for group in cls.groups.values()):
        return 2, "Group.token_kl"
    return 1, ""


def config_round_trip(algorithm: Algorithm) -> None:
    """Every configuration survives a round trip through JSON; unknown fields and NaN are refused."""
    cls = type(algorithm)
    validated = adapter(cls)
    every = [algorithm, *(other for _, others in variations(algorithm) for other in others)]
    for one in every:
        try:
            text = json.dumps(dump(one), allow_nan=False)
            again = validated.validate_python(json.loads(text))
        except (ValidationError, ValueError, TypeError) as error:
            message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise CheckFailed(
                f"the configuration {dump(one)} cannot be written as JSON and read again: {message}"
            ) from None
        require(again == one, f"the configuration {text} comes back as {again!r}")
    _refused(algorithm, {"a_field_that_is_not_there": 1})
    for field, name in zip(fields(algorithm), names(cls), strict=False):
        if isinstance(getattr(algorithm, field.name), float):
            _refused(algorithm, {name: math.nan})


def _refused(algorithm: Algorithm, values: dict[str, object]) -> None:
    try:
        adapter(type(algorithm)).validate_python(values)
    except ValidationError:
        return
    raise CheckFailed(f"accepts the configuration {values}")


def fields_documented(algorithm: Algorithm) -> None:
    """Every field has a sentence (`Doc`), and every float field's says its unit."""
    hints = get_type_hints(type(algorithm), include_extras=True)
    for f in fields(algorithm):
        notes = get_args(hints[f.name])[1:] if get_origin(hints[f.name]) is Annotated else ()
        sentences = [note.documentation for note in notes if isinstance(note, Doc)]
        require(len(sentences) == 1 and bool(sentences[0].strip()), f"the field {f.name!r} has no sentence")
        if isinstance(getattr(algorithm, f.name), float):
            said = any(re.search(rf"\b{unit}\b", sentences[0]) for unit in UNITS)
            require(said, f"the field {f.name!r} says no unit: {sentences[0]!r}; one of {', '.join(UNITS)}")


def options_matter(algorithm: Algorithm) -> None:
    """Every field changes something: the loss, the stages, the data or the solution."""
    base = _outcome(algorithm)
    ignored = [
        name
        for name, others in variations(algorithm)
        if others and all(_outcome(other) == base for other in others)
    ]
    require(not ignored, f"fields that change nothing: {', '.join(ignored)}")


def _outcome(algorithm: Algorithm) -> object:
    """All decisions of an algorithm in a comparable form: losses near and far, stages, data, solution."""
    try:
        examples, tools = shaped(algorithm, View(visits=10**6))
    except Exception as error:  # also an outcome: rso with too few candidates says so
        return repr(error)
    losses = [
        algorithm.loss(make_step(algorithm, variant)).tolist()
        for view in (View(), View(policy=Drifted(8.0)), View(policy=Drifted(40.0, seed=1)))
        for variant in views(algorithm, view)
    ]
    stages = tuple(algorithm.stages())
    solved = str(algorithm.solve(rows(algorithm), tools)) if any(stage.solve for stage in stages) else ""
    return losses, stages, list(map(str, examples)), solved, tools.notes, dict(algorithm.state())


def stage_shares(algorithm: Algorithm) -> None:
    """The stages' shares of the budget are positive and sum to 1."""
    for one in (algorithm, *(other for _, others in variations(algorithm) for other in others)):
        plan = tuple(one.stages())
        require(bool(plan) and all(isinstance(stage, Stage) for stage in plan), "stages() returns no stages")
        require(all(stage.share > 0 for stage in plan), "a stage's share is not positive")
        total = math.fsum(stage.share for stage in plan)
        require(
            math.isclose(total, 1.0, abs_tol=1e-9), f"the shares of {len(plan)} stages sum to {total:.6g}"
        )
        require(
            all(stage.refresh is None or stage.refresh >= 1 for stage in plan), "a stage's refresh is below 1"
        )


def completions_match(algorithm: Algorithm) -> None:
    """completions() has one completion per example for every declared group, columns() one finite number."""
    examples, _ = shaped(algorithm)
    made = algorithm.completions(examples)
    for name in sorted(set(made) ^ set(algorithm.groups)):
        how = "returned by completions() only" if name in made else "not returned by completions()"
        raise CheckFailed(f"the group {name!r} is {how}")
    for name, items in made.items():
        require(
            len(items) == len(examples),
            f"completions() has {len(items)} of group {name!r} for {len(examples)} examples",
        )
        require(
            all(isinstance(item, Completion) and item.text for item in items),
            f"{name!r} holds what is no Completion with a text",
        )
    for name, values in algorithm.columns(examples).items():
        require(
            len(values) == len(examples),
            f"columns() has {len(values)} of {name!r} for {len(examples)} examples",
        )
        require(all(math.isfinite(v) for v in values), f"the column {name!r} holds what is not finite")


PROBE = """
import importlib.util, json, sys, time
import torch
torch_s = time.process_time()
import xpo_bench, xpo_bench.contract.algorithm
name, file, path = json.loads(sys.argv[1])
sys.path[:0] = path
before = set(sys.modules)
began = time.process_time()
try:
    spec = importlib.util.find_spec(name)
except (ImportError, ValueError):
    spec = None
if spec is None or spec.origin != file:
    spec = importlib.util.spec_from_file_location(name, file)
sys.modules[name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
own_s = time.process_time() - began
slow = {"transformers", "datasets", "pandas", "scipy", "matplotlib"}
print(json.dumps([torch_s, own_s, sorted({m.partition(".")[0] for m in set(sys.modules) - before} & slow)]))
"""


def import_time(algorithm: Algorithm) -> None:
    """Importing the algorithm's module takes less than a second beyond torch."""
    name = type(algorithm).__module__
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        raise NotApplicable("the class stands in no file")
    place = json.dumps([name, file, [p for p in sys.path if p]])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, place], capture_output=True, text=True, timeout=300, check=False
    )
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    require(done.returncode == 0, f"{name} cannot be imported in a fresh interpreter: {last[0]}")
    torch_s, own_s, heavy = json.loads(done.stdout.strip().splitlines()[-1])
    bound = max(IMPORT_BOUND_S, torch_s / 2)
    because = f"; among what it imports: {', '.join(heavy)}" if heavy else ""
    require(own_s < bound, f"importing {name} takes {own_s:.1f} s beyond torch, of {bound:.1f} s{because}")
