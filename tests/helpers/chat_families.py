"""Chat templates in the manner of families of models, each with a tokenizer of its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chat_models import byte_level, fast, pieces, saved, word_pieces, wrapped

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% set found = namespace(system='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set found.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}"
    "{% elif m.role == 'user' %}{{ bos_token }}[INST] {{ found.system + m.content.strip() }} "
    "[/INST]{% set found.system = '' %}"
    "{% else %} {{ m.content.strip() }} {{ eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_V1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %} [INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
# the system prompt stands before the last message, if that is the user's: it is gone once an answer follows
MISTRAL_V3 = (
    "{% set rest = messages[1:] if messages[0].role == 'system' else messages %}{{ bos_token }}"
    "{% for m in rest %}{% if m.role == 'user' %}[INST] "
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% "
    "endif %}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
NEMO = MISTRAL_V3.replace("[INST] ", "[INST]").replace("{% else %} {{", "{% else %}{{")
VICUNA = (
    "{{ bos_token }}A chat between a user and an assistant. "
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else "
    "%}ASSISTANT: {{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{% if m.role in ('user', 'system', 'assistant') %}<|{{ m.role "
    "}}|>\n{{ m.content }}{{ eos_token }}\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role "
    "}}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul "
    "2024' %}{% endif %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = "
    "messages[1:] %}{% endif %}<|eot_id|>"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content "
    "| trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}"
    "{% if '</think>' in m.content %}{{ m.content }}{% else %}<think></think>\n{{ m.content "
    "| trim }}{% endif %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content "
    "}}{% elif m.role == 'system' %}"
    "{{ m.content }}{% else %}<|Assistant|>{{ m.content.split('</think>')[-1] }}{{ eos_token "
    "}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
# an empty <think> before the last answer, none before those that another turn follows
QWEN3 = (
    "{% set last = namespace(user=0) %}{% for m in messages %}{% if m.role == 'user' %}{% "
    "set last.user = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set parts = m.content.split('</think>') %}{% if loop.index0 > last.user %}<think>\n"
    "{{ parts[0].replace('<think>', '').strip() if parts | length > 1 }}\n</think>\n\n{% "
    "endif %}{{ parts[-1].lstrip() }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt "
    "%}<|im_start|>assistant\n{% endif %}"
)
GPT_OSS = (
    "{% macro system() %}<|start|>system<|message|>Current date: {{ strftime_now('%Y-%m-%d') "
    "}}<|end|>{% endmacro %}"
    "{{ system() }}"
    "{% for m in messages %}{% if m.role == 'assistant' %}<|start|>assistant"
    "{% if m.thinking %}<|channel|>analysis<|message|>{{ m.thinking }}<|end|><|start|>assistant{% endif %}"
    "<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
GRANITE = (
    "{% if messages[0].role != 'system' %}<|role|>system<|end_role|>Today's Date: {{ "
    "strftime_now('%B %-d, %Y') }}.<|end|>\n"
    "{% endif %}"
    "{% for m in messages %}<|role|>{{ m.role }}<|end_role|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|role|>assistant<|end_role|>{% endif %}"
)
NEMOTRON = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '<think>' not in m.content %}<think></think>{% endif "
    "%}{{ m.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
PLAIN_WORDS = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} [SEP] {% endfor %}{% if "
    "add_generation_prompt %}assistant :{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A template and its tokenizer.

    Args:
        tokenizer: makes it. stop: the token at which a sample ends; None where the template ends answers with
            none.
        tail: what the template writes after an answer. short: the generation prompt does not stand before
            every answer.
        ends: further tokens at which the model's generation settings end a text. dated: it asks for today's
            date.
    """

    tokenizer: Callable[[], Any]
    stop: str | None
    tail: str
    short: bool = False
    ends: Sequence[str] = field(default=())
    dated: bool = False

    def save(self, folder: Path, **settings: Any) -> str:
        tokenizer = self.tokenizer()
        ids = [
            i
            for i in (tokenizer.eos_token_id, *map(tokenizer.convert_tokens_to_ids, self.ends))
            if i is not None
        ]
        return saved(folder, tokenizer, ends=ids or None, **settings)


IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
HEADERS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
CHANNELS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|startoftext|>")
ROLES = ("<|user|>", "<|assistant|>", "<|system|>")


def llama_like(template: str, prefix: Any = "legacy", kind: str = "bpe", **told: Any) -> Any:
    return fast(
        wrapped(pieces(prefix, kind=kind), "<s> $A", ["<s>"]), template, bos="<s>", eos="</s>", **told
    )


FAMILIES = {
    "llama-2": Family(lambda: llama_like(LLAMA2), "</s>", " </s>"),
    "mistral-v1": Family(lambda: llama_like(MISTRAL_V1), "</s>", "</s>"),
    "mistral-v3": Family(
        lambda: llama_like(MISTRAL_V3, "first", special=("[INST]", "[/INST]")), "</s>", "</s>"
    ),
    "mistral-nemo": Family(
        lambda: fast(
            wrapped(byte_level(), "<s> $A", ["<s>"]),
            NEMO,
            bos="<s>",
            eos="</s>",
            special=("[INST]", "[/INST]"),
        ),
        "</s>",
        "</s>",
    ),
    "vicuna": Family(lambda: llama_like(VICUNA), "</s>", "</s>"),
    "zephyr": Family(lambda: llama_like(ZEPHYR, plain=ROLES), "</s>", "</s>\n"),
    "phi-3": Family(
        lambda: fast(pieces("legacy"), PHI3, bos="<s>", eos="<|endoftext|>", special=("<|end|>", *ROLES)),
        "<|end|>",
        "<|end|>\n<|endoftext|>",
    ),
    "qwen2.5": Family(
        lambda: fast(byte_level(), CHATML, eos="<|endoftext|>", special=IM), "<|im_end|>", "<|im_end|>\n"
    ),
    "smollm2": Family(
        lambda: fast(byte_level(), CHATML, bos="<|im_start|>", eos="<|im_end|>", special=IM),
        "<|im_end|>",
        "<|im_end|>\n",
    ),
    "yi": Family(
        lambda: fast(
            pieces("never", kind="unigram"), CHATML, bos="<|startoftext|>", eos="<|im_end|>", special=IM
        ),
        "<|im_end|>",
        "<|im_end|>\n",
    ),
    "gemma": Family(
        lambda: fast(
            wrapped(pieces("never"), "<bos> $A", ["<bos>"]),
            GEMMA,
            bos="<bos>",
            eos="<eos>",
            special=("<start_of_turn>", "<end_of_turn>"),
        ),
        "<end_of_turn>",
        "<end_of_turn>\n",
    ),
    "llama-3": Family(
        lambda: fast(
            wrapped(byte_level(), "<|begin_of_text|> $A", ["<|begin_of_text|>"]),
            LLAMA3,
            bos="<|begin_of_text|>",
            eos="<|end_of_text|>",
            special=HEADERS,
        ),
        "<|eot_id|>",
        "<|eot_id|>",
        dated=True,
    ),
    "glm-4.5": Family(
        lambda: fast(
            byte_level(),
            GLM,
            eos="<|endoftext|>",
            special=("[gMASK]", "<sop>", *ROLES),
            plain=("<think>", "</think>"),
        ),
        None,
        "",
        ends=("<|user|>",),
    ),
    "deepseek-r1": Family(
        lambda: fast(
            wrapped(byte_level(), "<bos> $A", ["<bos>"]),
            R1,
            bos="<bos>",
            eos="<eos>",
            special=("<|User|>", "<|Assistant|>"),
            plain=("<think>", "</think>"),
        ),
        "<eos>",
        "<eos>",
        short=True,
    ),
    "qwen3": Family(
        lambda: fast(byte_level(), QWEN3, eos="<|im_end|>", special=IM, plain=("<think>", "</think>")),
        "<|im_end|>",
        "<|im_end|>\n",
    ),
    "gpt-oss": Family(
        lambda: fast(byte_level(), GPT_OSS, bos="<|startoftext|>", eos="<|return|>", special=CHANNELS),
        "<|return|>",
        "<|return|>",
        dated=True,
    ),
    "granite": Family(
        lambda: fast(
            byte_level(),
            GRANITE,
            bos="<|end_of_text|>",
            eos="<|end_of_text|>",
            special=("<|role|>", "<|end_role|>", "<|end|>"),
        ),
        "<|end_of_text|>",
        "<|end_of_text|>\n",
        dated=True,
    ),
    "nemotron": Family(
        lambda: fast(
            byte_level(), NEMOTRON, bos="<s>", eos="<|im_end|>", special=IM, plain=("<think>", "</think>")
        ),
        "<|im_end|>",
        "<|im_end|>\n",
        short=True,
    ),
    "word-pieces": Family(
        lambda: fast(wrapped(word_pieces(), "[CLS] $A [SEP]", ["[CLS]", "[SEP]"]), PLAIN_WORDS, eos="[SEP]"),
        "[SEP]",
        " [SEP] ",
    ),
}
