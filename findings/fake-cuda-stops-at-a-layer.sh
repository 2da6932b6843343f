#!/usr/bin/env bash
# A good guess: under FakeTensorMode a CPU build of torch runs the forward pass of a model on a pretended "cuda", and refuses tensors of two devices.
# With torch 2.13.0 it makes and multiplies such tensors, but a Linear layer, `.to("cuda")` and an index on that device each raise RuntimeError.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install -q torch==2.13.0 numpy
cat > "$here/show.py" <<'PY'
import sys

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

print("torch", torch.__version__)


def product():
    return torch.ones(2, 3, device="cuda") @ torch.ones(3, 4, device="cuda")


def mixed():
    return torch.ones(2, device="cuda") + torch.ones(2)


def layer():
    return torch.nn.Linear(3, 4, device="cuda")(torch.ones(2, 3, device="cuda"))


def moved():
    return torch.ones(2).to("cuda")


def indexed():
    return torch.ones(4, device="cuda")[torch.tensor([0, 2], device="cuda")]


found = {}
for what in (product, mixed, layer, moved, indexed):
    with torch.no_grad(), FakeTensorMode():
        try:
            found[what.__name__] = f"works, on {what().device}"
        except Exception as error:
            found[what.__name__] = f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"
for name, outcome in found.items():
    print(f"{name:9} {outcome}")
works = {name for name, outcome in found.items() if outcome.startswith("works")}
sys.exit(0 if works == {"product"} else 1)
PY
"$here/env/bin/python" "$here/show.py" 2> "$here/log" || { status=$?; tail -5 "$here/log" >&2; exit $status; }
