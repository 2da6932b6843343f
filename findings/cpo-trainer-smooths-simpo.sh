#!/usr/bin/env bash
# A good guess: label_smoothing of trl's CPOTrainer with loss_type "simpo" is 0 to the loss, since SimPO has none, or else weighs in the SimPO loss
# of the pair with its sides exchanged. In fact it weighs in minus log sigmoid(gamma - beta * difference), the exchanged pair at a margin of -gamma.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install -q torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
cat > "$here/show.py" <<'PY'
import sys
from math import isclose, log1p, exp
from types import SimpleNamespace

import torch
import trl
from trl.experimental.cpo import CPOTrainer

beta, gamma, smoothing = 2.0, 0.8, 0.2
chosen, rejected = torch.tensor([-0.6]), torch.tensor([-1.1])  # mean log-probability per token


def theirs(chosen, rejected, smoothing):
    settings = SimpleNamespace(
        loss_type="simpo", beta=beta, simpo_gamma=gamma, label_smoothing=smoothing, alpha=0.0,
        accelerator=SimpleNamespace(device=torch.device("cpu")),
    )
    return float(CPOTrainer.cpo_loss(settings, chosen, rejected)[0])


def simpo(difference, gamma):
    return log1p(exp(gamma - beta * difference))


plain, exchanged = simpo(0.5, gamma), simpo(-0.5, gamma)
found, without = theirs(chosen, rejected, smoothing), theirs(chosen, rejected, 0.0)
guess = (1 - smoothing) * plain + smoothing * exchanged
other = (1 - smoothing) * plain + smoothing * simpo(-0.5, -gamma)
print(f"trl {trl.__version__}: SimPO {plain:.6f}, the trainer without smoothing {without:.6f}, with .2 {found:.6f}")
print(f"with the exchanged pair weighed in {guess:.6f}; with that pair at a margin of -gamma {other:.6f}")
ok = isclose(without, plain, rel_tol=1e-5) and isclose(found, other, rel_tol=1e-5) and abs(found - guess) > 0.1
sys.exit(0 if ok else 1)
PY
"$here/env/bin/python" "$here/show.py" 2> "$here/log" || { status=$?; tail -5 "$here/log" >&2; exit $status; }
