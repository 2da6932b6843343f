#!/usr/bin/env bash
# A good guess: with a system message, trl's apply_chat_template gives a completion that holds the answer, or an error.
# What happens (trl 1.16.0) under templates of the Mistral v2/v3 kind (here axolotl 0.19.0's), which write the system message before
# the LAST message if that is the user's: once the answer follows, the system message is gone, the common prefix ends before the
# user's question, and the question is part of the "completion" that DPO scores, without a warning.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv env
env/bin/pip install --quiet torch==2.13.0
env/bin/pip install --quiet trl==1.16.0 transformers==5.23.0 jinja2==3.1.6
env/bin/pip download --quiet --no-deps --only-binary :all: --dest wheels axolotl==0.19.0
env/bin/python - <<'PY'
import glob
import sys
import zipfile

import transformers
import trl
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl.data_utils import apply_chat_template

print("transformers", transformers.__version__, "trl", trl.__version__, "axolotl 0.19.0")
wheel = zipfile.ZipFile(glob.glob("wheels/axolotl-*.whl")[0])
inner = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
tokenizer.chat_template = wheel.read("axolotl/utils/chat_templates/templates/mistral_v2v3.jinja").decode()
row = {
    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a cat?"}],
    "completion": [{"role": "assistant", "content": "An animal."}],
}
found = apply_chat_template(row, tokenizer)
print(found)
sys.exit(0 if "What is a cat?" in found["completion"] and "Be brief." not in found["prompt"] + found["completion"] else 1)
PY
