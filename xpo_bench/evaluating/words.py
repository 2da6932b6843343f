"""The words of an evaluation: options of `xpo-bench evaluate`, arguments of `xpo_bench.evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from xpo_bench.contract.settings import TEMPLATE_DATE, Budget
from xpo_bench.runner.words import OnBadRow, Truncate, Word


@dataclass(frozen=True, kw_only=True)
class Words:
    """What is to be evaluated, on what, and how."""

    checkpoints: Annotated[tuple[str, ...], Word(option=False), Doc("[NAME=]CHECKPOINT")] = ()
    reference: Annotated[
        str, Word(metavar="MODEL"), Doc("the model that training began from: path, hub id or packaged model")
    ] = ""
    data: Annotated[
        str, Word(metavar="FILE_OR_HUB_ID"), Doc("the preference set, as `run --data` takes it")
    ] = ""
    base_data: Annotated[
        tuple[str, ...],
        Word(option=False),
        Doc("a set whose chosen texts show what was forgotten elsewhere"),
    ] = ()
    judge: Annotated[
        str | None,
        Word(metavar="MODULE:FUNCTION|MODEL"),
        Doc("judges samples: a Python function, or a sequence-classification model by path or hub id"),
    ] = None
    base: Annotated[
        str | None,
        Word(metavar="MODEL", default="what adapter_config.json names"),
        Doc("the model that LoRA adapters stand on"),
    ] = None
    beta: Annotated[
        str | None,
        Word(metavar="[NAME=]B[,...]"),
        Doc("the β of the loss: the preference that it implies is then compared with p_chosen (calibration)"),
    ] = None
    pairs: Annotated[
        int | None,
        Ge(1),
        Word(metavar="N", default="all"),
        Doc("evaluate at most N pairs of each split, those that `run` would take"),
    ] = None
    rows: Annotated[
        int | None,
        Ge(1),
        Word(metavar="N", default="all"),
        Doc("read only the first N rows of a data set, of each split if it has any"),
    ] = None
    on_bad_row: OnBadRow = "error"
    columns: Annotated[
        Mapping[str, str] | None,
        Word(metavar="NAME=COLUMN[,...]"),
        Doc("what columns mean, such as chosen=response_a,rejected=response_b; known layouts need none"),
    ] = None
    rankings: Annotated[
        str,
        Word(default="all"),
        Doc("make all pairs of a ranking, or its best answer against each other one"),
    ] = "all"
    heldout: Annotated[
        float, Word(metavar="F"), Doc("hold out the fraction of rows that `run --heldout F` holds out")
    ] = 0.0
    split_by: Annotated[
        str, Word(metavar="prompt|row|COLUMN", default="prompt"), Doc("with --heldout: as `run` has it")
    ] = "prompt"
    truncate: Truncate = "prompt"
    template_date: Annotated[
        date,
        Word(metavar="YYYY-MM-DD", default=TEMPLATE_DATE.isoformat()),
        Doc("the day that a chat template is told, where it writes today's date"),
    ] = TEMPLATE_DATE
    trust_remote_code: Annotated[bool, Doc("run code that the models' repositories ship")] = False
    kl_prompts: Annotated[
        int, Ge(1), Word(metavar="N", default=str(Budget.kl_prompts)), Doc("prompts sampled, at most")
    ] = Budget.kl_prompts
    kl_samples: Annotated[
        int, Ge(1), Word(metavar="N", default=str(Budget.kl_samples)), Doc("samples of each prompt")
    ] = Budget.kl_samples
    max_new_tokens: Annotated[
        int,
        Ge(1),
        Word(metavar="N", default=str(Budget.max_new_tokens)),
        Doc("length limit of samples, tokens"),
    ] = Budget.max_new_tokens
    batch_tokens: Annotated[
        int | None,
        Ge(1),
        Word(metavar="N", default="by device"),
        Doc("tokens of a forward pass, at most (one row at least)"),
    ] = None
    dtype: Annotated[
        str,
        Word(default="float32"),
        Doc("dtype that the models compute in; log-probabilities are at least float32"),
    ] = "float32"
    device: Annotated[str, Word(default="auto"), Doc("where models are put: auto, cpu, cuda or cuda:1")] = (
        "auto"
    )
    seed: Annotated[
        int | None,
        Ge(0),
        Word(metavar="N", default="0, or that of a policy of this suite"),
        Doc("seed of the samples"),
    ] = None
    out: Annotated[
        Path | None,
        Word(metavar="DIR", default="results/evaluations/ and a hash"),
        Doc("run directory; an existing one is extended"),
    ] = None
    wait: Annotated[
        bool, Doc("wait for another process that writes the run directory, in place of an error")
    ] = False
    fresh: Annotated[bool, Doc("measure checkpoints again that have been measured")] = False
