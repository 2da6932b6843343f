#!/usr/bin/env bash
# A good guess: a conversation whose contents are plain strings, the commonest form there is, is rendered by every published chat
# template or refused. What happens: the SmolVLM and Idefics3 templates in trl 1.16.0 read contents as lists of parts alone,
# and a string is a list of characters: all conversations of one shape render alike, without any of their text and without a warning.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv env
env/bin/pip install --quiet transformers==5.23.0 jinja2==3.1.6 tokenizers
env/bin/pip download --quiet --no-deps --only-binary :all: --dest wheels trl==1.16.0
env/bin/python - <<'PY'
import glob
import sys
import zipfile

import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

print("transformers", transformers.__version__, "trl 1.16.0")
wheel = zipfile.ZipFile(glob.glob("wheels/trl-*.whl")[0])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), bos_token="<s>")
same = []
for name in ("smolvlm", "idefics3"):
    tokenizer.chat_template = wheel.read(f"trl/chat_templates/{name}.jinja").decode()
    said = lambda question, answer: tokenizer.apply_chat_template(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], tokenize=False
    )
    first, second = said("What is a cat?", "An animal."), said("Is it raining?", "No.")
    print(name, repr(first), "equal" if first == second else "different")
    same.append(first == second and "cat" not in first)
sys.exit(0 if all(same) else 1)
PY
