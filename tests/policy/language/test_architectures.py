"""Architectures that cover what differs between them score, learn and sample as plain transformers does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from checkout import benchmark

compare = benchmark("architectures").compare

COVERED = {
    "llama": "the usual",
    "gpt_neo": "windows under a name of their own",
    "gemma3_text": "windows by kind of layer, norms around everything",
    "gemma3": "a multimodal configuration around a text model",
    "llama4_text": "chunks of attention",
    "gpt_oss": "sinks, windows, its own attention",
    "phi3 (longrope)": "frequencies that depend on the longest row",
    "llama (dynamic)": "frequencies that remember longer rows",
    "hrm_text": "stacks that are used several times",
    "doge": "a mask that it builds itself, and that looks ahead",
    "deepseek_v3": "latent attention, experts",
    "deepseek_v4": "compressed attention",
    "mamba": "a state in place of attention",
    "recurrent_gemma": "a state and windows",
    "minimax": "linear attention",
    "zamba2": "a state that goes on a little otherwise than it is computed at once",
    "bart": "the decoder of an encoder and a decoder",
    "roberta": "positions that begin elsewhere",
    "bloom": "distances in place of positions",
    "granite": "scaled logits",
}


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(level)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COVERED)
def test_it_is_computed_as_plain_transformers_does(name: str) -> None:
    found = compare(name)
    assert found["verdict"] == "exact", found
    assert found["error"] <= 5e-4
    assert found["largest_sum"] > 400
    assert found["sampler_error"] is not None
    assert found["sampler_error"] <= 5e-4


def test_what_cannot_be_run_is_one_line() -> None:
    found = compare("xlnet")
    assert found["verdict"].startswith("not supported: ")
    assert "\n" not in found["verdict"]
