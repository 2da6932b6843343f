#!/usr/bin/env bash
# A good guess: a chat template that asks for today's date can be given another day by passing a function of its own as
# `strftime_now` to apply_chat_template, whose keyword arguments are said to be accessible inside the template.
# What happens (transformers 5.23.0): the function reaches the template as the text "<function>", silently; the template then ends
# in TypeError 'str' object is not callable, and one that only asks whether strftime_now is defined goes on with the text.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv env
env/bin/pip install --quiet transformers==5.23.0 jinja2==3.1.6 tokenizers
env/bin/python - <<'PY'
import sys
import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

print("transformers", transformers.__version__)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
ask = [{"role": "user", "content": "a"}]
christmas = lambda form: "25 Dec 2024"

tokenizer.chat_template = "Today is {{ strftime_now('%d %b %Y') }}."
own = tokenizer.apply_chat_template(ask, tokenize=False)
try:
    given = tokenizer.apply_chat_template(ask, tokenize=False, strftime_now=christmas)
except TypeError as error:
    given = f"TypeError: {error}"
tokenizer.chat_template = "{{ strftime_now }}"
seen = tokenizer.apply_chat_template(ask, tokenize=False, strftime_now=christmas)
print("without:", own)
print("given a function:", given)
print("what the template sees:", seen)
sys.exit(0 if given == "TypeError: 'str' object is not callable" and seen == "<function>" else 1)
PY
