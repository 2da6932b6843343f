#!/usr/bin/env bash
# A good guess: a step of trl's DPOTrainer follows the mean gradient of its rows, however they are cut into micro-batches, as causal language models
# have it in transformers since the gradient accumulation fix. In fact it is a mean of the micro-batches' means: of 5 rows in micro-batches of 2, 2 and
# 1, the end of an epoch, the last row counts twice as much as any other, and the loss that is logged is that of no batch.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install -q torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
cat > "$here/show.py" <<'PY'
import copy
import sys

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["<unk>", "</s>", *(f"w{i}" for i in range(24))]
inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
config = LlamaConfig(
    vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
)
torch.manual_seed(0)
model, reference = LlamaForCausalLM(config), LlamaForCausalLM(config)
rows = [{"prompt": f"w{i}", "chosen": f" w{i + 6} w{i + 7}", "rejected": f" w{i + 12}"} for i in range(5)]
place = sys.argv[1]


def train(dataset, **more):
    """The loss that is logged of one step, and where plain gradient descent at rate 1 takes the weights."""
    settings = trl.DPOConfig(
        output_dir=place, report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, num_train_epochs=1, logging_steps=1, learning_rate=1.0,
        lr_scheduler_type="constant", optim="sgd", max_grad_norm=0, save_strategy="no", train_sampling_strategy="sequential", beta=1.0, **more
    )
    trainer = trl.DPOTrainer(
        model=copy.deepcopy(model), ref_model=copy.deepcopy(reference), args=settings, train_dataset=Dataset.from_list(dataset), processing_class=tokenizer
    )
    start = torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])
    trainer.train()
    end = torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])
    return trainer.state.log_history[0]["loss"], (start - end).double()


each = [train([row], per_device_train_batch_size=1) for row in rows]
whole = train(rows, per_device_train_batch_size=5)
cut = train(rows, per_device_train_batch_size=2, gradient_accumulation_steps=3)
weights = torch.linalg.lstsq(torch.stack([gradient for _, gradient in each], 1), cut[1][:, None]).solution[:, 0]
print(f"trl {trl.__version__}, transformers {transformers.__version__}")
print(f"loss of 5 rows at once {whole[0]:.6f}, of the same step in 2 + 2 + 1 {cut[0]:.6f}")
print("what each row counts in that step:", [round(float(w), 3) for w in weights])
expected = torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 3], dtype=torch.float64)
sys.exit(0 if abs(whole[0] - cut[0]) > 1e-4 and torch.allclose(weights, expected, atol=1e-2) else 1)
PY
"$here/env/bin/python" "$here/show.py" "$here" 2> "$here/log" || { status=$?; tail -5 "$here/log" >&2; exit $status; }
