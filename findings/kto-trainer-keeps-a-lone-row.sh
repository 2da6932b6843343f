#!/usr/bin/env bash
# A good guess: trl's KTOTrainer pairs every prompt with the completion of another row to estimate the KL, whatever the number of rows. In fact
# completions rotate within chunks of per_device_train_batch_size rows, so that a last chunk of one row is paired with its own completion, and the KL
# estimate of that batch is the row's own reward; the rows cannot be shuffled either, since another sampling than "sequential" is refused.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install -q torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
cat > "$here/show.py" <<'PY'
import sys

import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["<unk>", "</s>", *(f"w{i}" for i in range(12))]
inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
config = LlamaConfig(
    vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
)
rows = [{"prompt": f"w{i}", "completion": f" w{i + 6}", "label": bool(i % 2)} for i in range(5)]
place = sys.argv[1]


def trainer(**more):
    settings = trl.KTOConfig(
        output_dir=place, per_device_train_batch_size=2, report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, **more
    )
    return trl.KTOTrainer(
        model=LlamaForCausalLM(config), ref_model=LlamaForCausalLM(config), args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )


try:
    trainer(train_sampling_strategy="random")
    refused = "not refused"
except ValueError as error:
    refused = f"ValueError: {str(error)[:90]}..."
data = trainer().train_dataset
own = [tokenizer.decode(row["completion_ids"]) for row in data]
paired = [tokenizer.decode(row["KL_completion_ids"]) for row in data]
print(f"trl {trl.__version__}: train_sampling_strategy random: {refused}")
for a, b in zip(own, paired):
    print(f"completion {a!r}, for the KL {b!r}")
print("the last row is its own mismatch:", own[4] == paired[4])
sys.exit(0 if refused.startswith("ValueError") and own[4] == paired[4] and all(a != b for a, b in zip(own[:4], paired)) else 1)
PY
"$here/env/bin/python" "$here/show.py" "$here" 2> "$here/log" || { status=$?; tail -5 "$here/log" >&2; exit $status; }
