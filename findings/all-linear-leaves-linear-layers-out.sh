#!/usr/bin/env bash
# A good guess: target_modules="all-linear" of peft's LoraConfig puts adapters on every torch.nn.Linear of a model but its head, which is what its
# documentation says. In a DeepSeek-V3 it leaves out the three of every dense MLP and of every shared expert, and adapts the router, which is none.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
cat > "$here/show.py" <<'PY'
import sys
from importlib.metadata import version

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
config = DeepseekV3Config(
    vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1,
    q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16, head_dim=8,
    max_position_embeddings=32,
)
model = DeepseekV3ForCausalLM(config)
linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
inject_adapter_in_model(LoraConfig(r=2, target_modules="all-linear"), model)
adapted = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
left_out, beside = sorted(linear - adapted), sorted(name for name in adapted - linear if "base_layer" not in name)
print("peft", version("peft"), "transformers", version("transformers"))
print("torch.nn.Linear without an adapter:", *left_out, sep="\n  ")
print("adapted, and no torch.nn.Linear:", *beside, sep="\n  ")
wanted = [f"model.layers.0.mlp.{n}" for n in ("down_proj", "gate_proj", "up_proj")]
wanted += [f"model.layers.1.mlp.shared_experts.{n}" for n in ("down_proj", "gate_proj", "up_proj")]
sys.exit(0 if left_out == wanted and beside == ["model.layers.1.mlp.experts", "model.layers.1.mlp.gate"] else 1)
PY
"$here/env/bin/python" "$here/show.py"
