"""A tiny random model of any causal architecture of transformers, with weights that let mistakes show.

Every number of a default configuration that says how large a model is gets a small value by its name
(`SIZES`), windows and chunks among them; what an architecture needs besides is in `TWEAKS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

VOCABULARY = 512
WINDOW = 16
CONTEXT = 160
LARGEST = 50_000_000
"""Weights of a model, at most."""
SIGNIFICANT = 8.0
"""What matrices are multiplied by after they were drawn: at the usual 0.02 everything is close to uniform,
and hides mistakes.
"""
CALM = {"minicpm3": 4.0}
"""A smaller factor where rounding alone is as large as what is looked for: at 8, minicpm3 (which scales its
embeddings by 12) differs between float32 and float64 by 5.4e-4 nats in plain transformers, and from the suite
by 3.4e-5 where both are float64."""

SIZES: Mapping[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embed_dim", "word_embed_proj_dim", "embedding_size"), 64
    ),
    **dict.fromkeys(
        ("width", "lru_width", "dim_model", "decoder_hidden_size", "hidden_dim", "model_dim", "attn_hidden"),
        64,
    ),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size"),
        96,
    ),
    **dict.fromkeys(
        (
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "expert_ffn_hidden_size",
            "dim_ff",
        ),
        32,
    ),
    **dict.fromkeys(
        ("dense_intermediate_size", "shared_intermediate_size", "intermediate_size_mlp", "ffn_size"), 64
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2
    ),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers", "num_blocks"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(
        ("encoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"), 4
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_kv_heads", "multi_query_group_num"), 2),
    **dict.fromkeys(("swa_num_key_value_heads", "sliding_num_key_value_heads"), 2),
    **dict.fromkeys(
        (
            "head_dim",
            "v_head_dim",
            "kv_channels",
            "d_kv",
            "dim_head",
            "attention_head_dim",
            "global_head_dim",
        ),
        16,
    ),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim"), 8),
    "qk_head_dim": 16,
    "shared_experts_intermediate_size": 32,
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "o_lora_rank"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2
    ),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_groups"), 1),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_target_positions"), CONTEXT
    ),
    **dict.fromkeys(("max_sequence_length", "seq_length", "seq_len", "max_source_positions"), CONTEXT),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window", "attention_window_size"), WINDOW),
    "attention_chunk_size": WINDOW,
    **dict.fromkeys(
        ("local_attention", "keep_window_size", "index_topk", "sliding_window_size", "chunk_size"), WINDOW
    ),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size", "mamba_state_size"), 8),
    **dict.fromkeys(("index_head_dim",), 16),
    **dict.fromkeys(("index_n_heads",), 2),
    **dict.fromkeys(("linear_num_key_heads",), 2),
    **dict.fromkeys(("linear_num_value_heads",), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("rotary_dim",), 8),
    **dict.fromkeys(("first_k_dense_replace", "moe_layer_start_index"), 1),
    **dict.fromkeys(("swa_num_attention_heads",), 4),
    **dict.fromkeys(("swa_head_dim", "swa_v_head_dim"), 16),
    **dict.fromkeys(("hidden_size_per_layer_input",), 16),
    **dict.fromkeys(
        ("attention_dropout", "hidden_dropout", "dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0
    ),
}
"""Name of a field: its small value. A field that is None by default stays so, but for those in `STATED`."""

STATED = frozenset(
    {"head_dim", "moe_intermediate_size", "num_key_value_heads", "n_routed_experts", "num_experts_per_tok"}
)
KINDS = ("layer_types", "layers_block_type", "mlp_layer_types", "indexer_types")
"""Fields that list the kind of each layer."""

DECODER = {"is_decoder": True}
TWEAKS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            *(
                "bert",
                "bert-generation",
                "camembert",
                "data2vec-text",
                "electra",
                "ernie",
                "megatron-bert",
                "rembert",
            ),
            *("roberta", "roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod"),
        ),
        DECODER,
    ),
    "bailing_hybrid": {"linear_head_dim": 16},
    "bamba": {"num_hidden_layers": 2, "attn_layer_indices": [1]},
    "big_bird": {
        **DECODER,
        "attention_type": "original_full",
    },  # its sparse attention pads rows to whole blocks
    "bigbird_pegasus": {"attention_type": "original_full"},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            name: {"rope_type": "default", "rope_theta": 10000.0}
            for name in ("sliding_attention", "full_attention")
        },
    },
    "dots1": {"n_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3n_text": {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.5, 0.0]},
    "ctrl": {"dff": 96},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "kimi_linear": {"linear_head_dim": 16, "linear_num_heads": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"zero_expert_num": 2, "moe_topk": 2},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1},
    "mpt": {"attn_config": {"attn_pdrop": 0}},
    "qwen4_exp_text": (
        QWEN4 := {
            **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": WINDOW},
            **{
                "indexer_compress_ratio": 4,
                "ngram_vocab_size_base": 512,
                "split_ngram_parts": 1,
                "hc_lowrank": 16,
            },
        }
    ),
    "qwen4_exp": {"text_config": QWEN4},
    "reformer": {
        **DECODER,
        "axial_pos_embds": False,
        "attn_layers": ["local", "local"],
        "local_attn_chunk_length": 16,
        "num_buckets": 4,
    },
    "roc_bert": {
        **DECODER,
        **{f"{part}_embed_dim": 16 for part in ("pronunciation", "shape")},
        **{f"{part}_vocab_size": 64 for part in ("pronunciation", "shape")},
    },
    "xlm": {"emb_dim": 64, "causal": True},
    "zamba": {
        "mamba_dt_rank": 4,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "xmod": {**DECODER, "default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "nemotron_h": {"n_groups": 2, "moe_shared_expert_intermediate_size": 32},
}
"""What an architecture needs besides `SIZES`: what makes it causal, what its numbers must fit, or what is
large under a name of its own."""

NOTHING_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2 (scaled by layer)": (
        "gpt2",
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    ),
    "llama (dynamic)": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "llama (yarn)": (
        "llama",
        {
            "rope_parameters": {
                **{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0},
                "original_max_position_embeddings": CONTEXT // 4,
            }
        },
    ),
    "phi3 (longrope)": (
        "phi3",
        {
            "original_max_position_embeddings": 48,
            "rope_parameters": {
                **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 48},
                **{"short_factor": [1.0] * 8, "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]},
            },
        },
    ),
    "qwen2 (window)": ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
}
"""Settings of an architecture that compute something else: its model type, and what is set."""


def architectures() -> dict[str, str]:
    """Every model type of transformers with a causal language model: its class, and its variants."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    return dict(sorted((known | {name: known[kind] for name, (kind, _) in VARIANTS.items()}).items()))


def build(kind: str, attention: str | None = None) -> Any:
    """A model of that type on the CPU, the same weights each time.

    Args:
        attention: the kind of attention; the architecture's own choice by default.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, tweaks = VARIANTS.get(kind, (kind, TWEAKS.get(kind, {})))
    config = configuration(CONFIG_MAPPING[kind], tweaks)
    words = {} if attention is None else {"attn_implementation": attention}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if size > LARGEST:
            raise ValueError(
                f"{kind} has {size:,} weights even when it is made small; a line in TWEAKS is missing"
            )
        model = AutoModelForCausalLM.from_config(config, **words).eval()
        enlarge(model, CALM.get(kind, SIGNIFICANT))
    return model


def configuration(kind: type[Any], tweaks: Mapping[str, Any]) -> Any:
    """The default configuration of a class, made small."""
    return kind(**small(kind, tweaks))


def small(kind: type[Any], tweaks: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that make a configuration small, and the configurations inside it likewise."""
    default, found = kind(), {}
    for name, usual in _fields(kind).items():
        listed = isinstance(usual, (list, tuple, dict))
        if name in SIZES and not listed and (usual is not None or name in STATED):
            found[name] = type(usual)(SIZES[name]) if isinstance(usual, float) else SIZES[name]
        if name in NOTHING_SPECIAL:
            found[name] = NOTHING_SPECIAL[name]
    if (
        "qk_rope_head_dim" in found
    ):  # multi-head latent attention turns a part of each head, and shares no keys
        found |= {
            name: value for name, value in {"head_dim": 8, "num_key_value_heads": 4}.items() if name in found
        }
    found |= _layers(default, _fields(kind)) | {
        name: value for name, value in tweaks.items() if not isinstance(value, Mapping)
    }
    for name, inner in vars(default).items():
        if hasattr(inner, "model_type") and hasattr(inner, "to_dict"):
            found[name] = small(type(inner), tweaks.get(name, {}))
    return found | {
        name: value for name, value in tweaks.items() if isinstance(value, Mapping) and name not in found
    }


def _layers(default: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A layer of every kind that the default configuration has, two at least."""
    listed = {name: list(vars(default).get(name) or ()) for name in KINDS if name in fields}
    pairs = list(zip(*(kinds for kinds in listed.values() if kinds), strict=False))
    distinct = list(dict.fromkeys(pairs))
    if not distinct:
        return {}
    distinct = distinct if len(distinct) > 1 else distinct * 2
    found: dict[str, Any] = {
        name: [kinds[k] for kinds in distinct]
        for k, name in enumerate(name for name in listed if listed[name])
    }
    return found | {
        name: len(distinct) for name in ("num_hidden_layers", "num_layers", "n_layer") if name in fields
    }


def _fields(kind: type[Any]) -> dict[str, Any]:
    """What a configuration is made of, with its defaults."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        names = getattr(base, "__annotations__", {})
        found |= {
            name: base.__dict__.get(name)
            for name in names
            if not isinstance(base.__dict__.get(name), property)
        }
    parameters = inspect.signature(kind.__init__).parameters
    for name, parameter in parameters.items():
        if name not in ("self", "args", "kwargs") and parameter.default is not parameter.empty:
            value = parameter.default
            found[name] = None if repr(value).startswith("<factory") else value
    return {name: value for name, value in found.items() if name in parameters}


@torch.no_grad()
def enlarge(model: Any, factor: float) -> None:
    """Make what was drawn large: matrices times a factor, and biases that are zero by default drawn."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "norm" not in name and parameter.std() < 0.1:
            parameter.mul_(factor)
        elif parameter.dim() == 1 and name.endswith("bias") and not parameter.any():
            parameter.normal_(0.0, 0.05)
