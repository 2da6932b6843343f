"""BOS and EOS exactly once, a boundary that cannot move, and truncation that is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from narrow import present
from pretrained import stories_folder

from xpo_bench.contract.examples import Completion
from xpo_bench.errors import DataError, UsageError
from xpo_bench.policy.language.tokenize import Encoded, encode
from xpo_bench.policy.language.tokenizers import ByteTokenizer, IdTokenizer, ModelTokenizer, Tokenizer

BYTES = ByteTokenizer()
IDS = IdTokenizer(32)


class Specials(ByteTokenizer):
    """Reads `<` as BOS and `>` as EOS, as tokenizers of models do with special tokens in the text."""

    def ids(self, text: str) -> list[int]:
        return [{ord("<"): 256, ord(">"): 257}.get(i, i) for i in super().ids(text)]


@pytest.fixture(scope="module")
def stories() -> ModelTokenizer:
    """The pretrained model's tokenizer."""
    found = stories_folder()
    from transformers import AutoTokenizer

    return ModelTokenizer(AutoTokenizer.from_pretrained(found, local_files_only=True))


def rows(
    tokenizer: Tokenizer,
    *pairs: tuple[str, str],
    context: int = 512,
    eos: bool = True,
    truncate: str = "prompt",
) -> Encoded:
    return encode(
        tokenizer, [Completion(*pair) for pair in pairs], context=context, eos=eos, truncate=truncate
    )


def parts(encoded: Encoded, index: int = 0) -> tuple[list[int], list[int]]:
    row = present(encoded.row(index))
    return list(row.ids[: row.start]), list(row.ids[row.start :])


def test_bytes_with_bos_and_eos() -> None:
    assert parts(rows(BYTES, ("ab", "c"))) == ([256, 97, 98], [99, 257])
    assert parts(rows(BYTES, ("ab", "c"), eos=False)) == ([256, 97, 98], [99])


def test_ids_are_taken_as_they_stand() -> None:
    assert parts(rows(IDS, ("5 8 9", "16  29"))) == ([5, 8, 9], [16, 29])


@pytest.mark.parametrize(("prompt", "text"), [("<a", "b>"), ("<<a", "b>>"), ("a", "b")])
def test_special_tokens_in_the_text_are_not_doubled(prompt: str, text: str) -> None:
    assert parts(rows(Specials(), (prompt, text))) == ([256, 97], [98, 257])


def test_specials_inside_the_text_stay() -> None:
    assert parts(rows(Specials(), ("a<b", "c>d"))) == ([256, 97, 256, 98], [99, 257, 100, 257])


@pytest.mark.parametrize("text", ["1 x", "1.5", "32", "-1"])
def test_bad_ids_are_named(text: str) -> None:
    with pytest.raises(DataError, match="token id"):
        rows(IDS, ("1", text))


def test_empty_prompt_needs_a_bos() -> None:
    assert parts(rows(BYTES, ("", "a"))) == ([256], [97, 257])
    with pytest.raises(UsageError, match="beginning-of-sequence"):
        rows(IDS, ("", "1"))


def test_empty_completion() -> None:
    assert parts(rows(BYTES, ("a", ""))) == ([256, 97], [257])
    with pytest.raises(DataError, match="no tokens"):
        rows(BYTES, ("a", ""), eos=False)


def test_prompt_loses_its_left_end() -> None:
    encoded = rows(BYTES, ("abcdef", "xy"), ("a", "xy"), context=6)
    assert parts(encoded) == ([256, 101, 102], [120, 121, 257])
    assert parts(encoded, 1) == ([256, 97], [120, 121, 257])
    assert (encoded.truncated, encoded.dropped) == (1, 0)
    assert parts(rows(IDS, ("1 2 3 4", "5 6"), context=4))[0] == [3, 4]


def test_a_prompt_keeps_one_token() -> None:
    assert parts(rows(BYTES, ("abc", "xyz"), context=4)) == ([256], [120, 121, 122])
    encoded = rows(IDS, ("1 2", "3 4 5 6 7"), context=4)
    assert parts(encoded) == ([2], [3, 4, 5])
    assert encoded.truncated == 1


def test_completion_loses_its_right_end_and_its_eos() -> None:
    encoded = rows(BYTES, ("abc", "xyz"), ("abcdef", "x"), context=6, truncate="completion")
    assert parts(encoded) == ([256, 97, 98, 99], [120, 121])
    assert encoded.row(1) is None
    assert (encoded.truncated, encoded.dropped) == (1, 1)


def test_drop() -> None:
    encoded = rows(BYTES, ("abc", "xyz"), ("a", "x"), context=6, truncate="drop")
    assert encoded.row(0) is None
    assert parts(encoded, 1) == ([256, 97], [120, 257])
    assert (len(encoded), encoded.truncated, encoded.dropped) == (2, 0, 1)


def test_unknown_truncation() -> None:
    with pytest.raises(UsageError, match="prompt, completion, drop"):
        rows(BYTES, ("a", "b"), truncate="left")


def test_equal_rows_are_kept_once() -> None:
    encoded = rows(BYTES, ("a", "b"), ("a", "c"), ("a", "b"))
    assert len(encoded) == 3
    assert len(encoded.rows) == 2
    assert encoded.item.tolist() == [0, 1, 0]
    assert encoded.row(-1) is None


@given(st.text(max_size=12), st.text(min_size=1, max_size=12))
def test_bytes_survive_the_round_trip(prompt: str, text: str) -> None:
    prompt, text = (s.encode(errors="ignore").decode() for s in (prompt, text))
    before, after = parts(rows(BYTES, (prompt, text)))
    assert (BYTES.decode(before), BYTES.decode(after)) == (prompt, text)
    assert before.count(256) == after.count(257) == 1


@pytest.mark.parametrize("end", ["", " was", ".", "!", "\n", "é", "</s>"])
def test_a_clean_boundary_gives_the_ids_of_the_joint_text(stories: ModelTokenizer, end: str) -> None:
    prompt, text = "Lily smiled" + end, " because she was happy."
    row = present(rows(stories, (prompt, text)).row(0))
    assert list(row.ids) == [*stories.inner(prompt + text)["input_ids"], stories.eos]
    assert list(row.ids[: row.start]) == stories.inner(prompt)["input_ids"]


def test_a_token_that_prompt_and_completion_share_is_the_completions(stories: ModelTokenizer) -> None:
    prompt, text = "The cat sat on the ", "bed and was happy."
    encoded = rows(stories, (prompt, text), ("Lily smiled", " because."))
    row = present(encoded.row(0))
    assert list(row.ids) == [*stories.inner(prompt + text)["input_ids"], stories.eos]
    own = stories.inner(prompt)["input_ids"]
    assert row.start < len(own)
    assert list(row.ids[: row.start]) == own[: row.start]
    assert row.ids[row.start] != own[row.start]
    assert encoded.merged == 1


@pytest.mark.parametrize("prompt", ["Once", "<s>Once", "<s><s>Once"])
def test_a_models_own_bos_is_not_doubled(stories: ModelTokenizer, prompt: str) -> None:
    before, after = parts(rows(stories, (prompt, "there was</s>")))
    assert before.count(present(stories.bos)) == 1
    assert after.count(present(stories.eos)) == 1
    assert after[-1] == stories.eos
