#!/usr/bin/env bash
# A good guess: for a conversational prompt that ends in a message of the assistant, trl's DPOTrainer tokenises the row as trl's own
# apply_chat_template renders it, which continues that message. In fact the trainer asks the template for a generation prompt whatever
# the last role is: it closes the message, opens a second turn, and puts both into the prompt, where apply_chat_template leaves them to the completion.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install -q torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
cat > "$here/show.py" <<'PY'
import sys

import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl.data_utils import apply_chat_template

words = ["<unk>", "</s>", "<|user|>", "<|assistant|>", "hello", "the", "answer", "is", "four", "five"]
inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
tokenizer.chat_template = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
row = {
    "prompt": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "the answer is"}],
    "chosen": [{"role": "assistant", "content": "four"}],
    "rejected": [{"role": "assistant", "content": "five"}],
}
rendered = apply_chat_template(dict(row), tokenizer)
config = LlamaConfig(
    vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
)
place = sys.argv[1]
LlamaForCausalLM(config).save_pretrained(place + "/model")
arguments = trl.DPOConfig(output_dir=place + "/out", report_to="none", use_cpu=True, bf16=False, disable_tqdm=True)
trainer = trl.DPOTrainer(
    model=place + "/model", args=arguments, train_dataset=Dataset.from_list([row]), processing_class=tokenizer
)
item = trainer.train_dataset[0]
by_function = [tokenizer.tokenize(rendered[part]) for part in ("prompt", "chosen")]
by_trainer = [tokenizer.convert_ids_to_tokens(item[part]) for part in ("prompt_ids", "chosen_ids")]
print(f"trl {trl.__version__}, transformers {transformers.__version__}")
print("apply_chat_template: prompt", by_function[0], "chosen", by_function[1])
print("DPOTrainer:          prompt", by_trainer[0], "chosen", by_trainer[1])
turn = ["</s>", "<|assistant|>"]
same_text = by_function[0] + by_function[1] == by_trainer[0] + by_trainer[1]
sys.exit(0 if same_text and by_trainer[0][-2:] == turn and by_function[1][:2] == turn else 1)
PY
"$here/env/bin/python" "$here/show.py" "$here" 2> "$here/log" || { status=$?; tail -5 "$here/log" >&2; exit $status; }
