#!/usr/bin/env bash
# A good guess: rewards/accuracies of trl's DPOTrainer begins at one half, where the policy is the reference and no pair is ranked either way. In fact
# ties count as wrong: it begins at 0, so that every run seems to learn in its first steps, and a pair whose two answers are equal is wrong for ever.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install -q torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
cat > "$here/show.py" <<'PY'
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
place = sys.argv[1]


def accuracies(rows):
    settings = trl.DPOConfig(
        output_dir=place, report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, max_steps=30, logging_steps=1, save_strategy="no", learning_rate=0.01,
        per_device_train_batch_size=4, beta=1.0
    )
    model.save_pretrained(f"{place}/model")
    trainer = trl.DPOTrainer(model=f"{place}/model", args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    log = [line for line in trainer.state.log_history if "loss" in line]
    return [(round(line["loss"], 4), line["rewards/accuracies"]) for line in log]


rows = [{"prompt": f"w{i}", "chosen": f" w{i + 6} w{i + 7}", "rejected": f" w{i + 12}"} for i in range(4)]
usual = accuracies(rows)
half = accuracies(rows[:2] + [{"prompt": f"w{i}", "chosen": f" w{i + 6}", "rejected": f" w{i + 6}"} for i in (2, 3)])
print(f"trl {trl.__version__}, transformers {transformers.__version__}: (loss, rewards/accuracies)")
print(f"four pairs, at the first step {usual[0]}, at the last {usual[-1]}")
print(f"two of the four with equal answers, at the first step {half[0]}, at the last {half[-1]}")
sys.exit(0 if usual[0] == (0.6931, 0.0) and usual[-1][1] == 1.0 and half[-1][1] == 0.5 else 1)
PY
"$here/env/bin/python" "$here/show.py" "$here" 2> "$here/log" || { status=$?; tail -5 "$here/log" >&2; exit $status; }
