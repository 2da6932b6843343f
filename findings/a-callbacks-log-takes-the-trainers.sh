#!/usr/bin/env bash
# A good guess: a callback that calls trainer.log() with a number of its own adds a line to the log. In fact the line takes the place of the trainer's:
# logging clears the flag by which the trainer knows that its own line is due, so that at every step where both fall together the loss, the gradient norm
# and the learning rate are not logged at all, and trl's averages (rewards, accuracies) go into the callback's line instead.
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
rows = [{"prompt": f"w{i}", "chosen": f" w{i + 6} w{i + 7}", "rejected": f" w{i + 12}"} for i in range(8)]
place = sys.argv[1]


class Own(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % 4 == 0:
            self.trainer.log({"own": 1.0})


def lines(*callbacks):
    settings = trl.DPOConfig(
        output_dir=place, report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, num_train_epochs=1, logging_steps=2, save_strategy="no",
        per_device_train_batch_size=1
    )
    trainer = trl.DPOTrainer(model=model, ref_model=reference, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    for callback in callbacks:
        callback.trainer = trainer
        trainer.add_callback(callback)
    trainer.train()
    return trainer.state.log_history[:-1]


plain, watched = lines(), lines(Own())
print(f"trl {trl.__version__}, transformers {transformers.__version__}, a line every 2 steps")
for name, log in (("without the callback", plain), ("with a line of its own every 4 steps", watched)):
    print(f"{name}: loss at steps {[line['step'] for line in log if 'loss' in line]}, rewards at {[line['step'] for line in log if 'rewards/chosen' in line]}")
own = [line for line in watched if "own" in line]
lost = [line["step"] for line in plain if "loss" in line] == [2, 4, 6, 8] and [line["step"] for line in watched if "loss" in line] == [2, 6]
sys.exit(0 if lost and all("rewards/chosen" in line for line in own) else 1)
PY
"$here/env/bin/python" "$here/show.py" "$here" 2> "$here/log" || { status=$?; tail -5 "$here/log" >&2; exit $status; }
