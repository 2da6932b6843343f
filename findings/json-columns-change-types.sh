#!/usr/bin/env bash
# A good guess: a data set of mixed texts and messages that `datasets` stores with on_mixed_types="use_json" (the default of its
# JSON reader, too) gives back the texts that went in. What happens: a text that happens to spell JSON ("12", "true", "[1]", and even
# "007", which is no JSON) comes back as a number, a truth value or a list, and '"quoted"' loses its quotes; the parquet file holds
# such texts unquoted beside quoted ones, so that no reader can tell the text "12" from the number 12.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1
HF_HOME="$place/hf" HF_HUB_OFFLINE=1 "$place/venv/bin/python" - "$place" <<'PY'
import json
import sys

import datasets
import pyarrow
import pyarrow.parquet as pq

datasets.disable_progress_bars()
print("datasets", datasets.__version__, "pyarrow", pyarrow.__version__)
messages = [{"role": "user", "content": "hello"}]
texts = ["plain", "12", "true", "007", "[1]", '"quoted"']
rows = [{"text": messages}, *({"text": text} for text in texts)]
place = sys.argv[1]

in_memory = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
with open(f"{place}/rows.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
from_file = datasets.load_dataset("json", data_files=f"{place}/rows.jsonl", split="train", cache_dir=f"{place}/cache")
in_memory.to_parquet(f"{place}/rows.parquet")
stored = [row["text"] for row in pq.ParquetFile(f"{place}/rows.parquet").read().to_pylist()][1:]

expected = ["plain", 12, True, 7, [1], "quoted"]
for name, table in (("from_list", in_memory), ("load_dataset('json')", from_file)):
    got = [row["text"] for row in table][1:]
    print(f"{name}: put in {texts}, got back {got}")
    if got != expected:
        sys.exit(f"{name}: the behaviour has changed")
print("cells of the parquet file:", stored)
if stored != ['"plain"', "12", "true", "007", "[1]", '"quoted"']:
    sys.exit("the cells of the file have changed")
PY
