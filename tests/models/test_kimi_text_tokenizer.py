"""Kimi-Audio's tokenizer against byte-pair encoding by hand, and its prompts against the rules of the release."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import tiny_kimi
from hypothesis import assume, given
from hypothesis import strategies as some
from jinja2.exceptions import TemplateError
from tiny_kimi import OFFSET, SPECIAL_TOKEN_COUNT
from transformers import PreTrainedTokenizerFast

from undersong.models.kimi.processing import SPLIT_PATTERN, kimi_tokenizer, special_tokens
from undersong.types import UndersongError

FIRST = OFFSET - SPECIAL_TOKEN_COUNT  # the first special token
TEXTS = [
    "",
    "tell the house",
    " the house and you",
    "The the THE tHe",
    "12 houses, 1234567 lamps",
    "  two   blanks \t and\n\nlines\r\n \n end  ",
    "it's you're we'LL I'd 'sting",
    "éé日本語 café naïve – “quoted” 🙂👩‍👩‍👧",
    "a_b-c/d\\e{f}[g](h)<i>",
    "\x00\x7f\u2028\u00a0x",
    "houhouhousehous ererere ononon ininging",
]
PLACES = {  # the release's ids, of which the first special one is 151643
    151643: "[BOS]",
    151644: "[EOS]",
    151645: "<|im_msg_end|>",
    151652: "[EOT]",
    151661: "<|im_media_begin|>",
    151663: "<|im_media_end|>",
    151666: "<|im_kimia_text_blank|>",
    151667: "<|im_kimia_text_eos|>",
    151670: "<|im_kimia_user_msg_start|>",
    151671: "<|im_kimia_assistant_msg_start|>",
    151675: "<|im_kimia_speech_ct_id|>",
    151676: "<|im_kimia_speech_ctd_id|>",
    152063: "<|reserved_token_406|>",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return tiny_kimi.tokenizer(tmp_path_factory.mktemp("ranks"))


def by_hand(text: str) -> list[int]:
    """Byte-pair encoding of ordinary text: in a piece, the pair whose union ranks lowest is joined, leftmost first."""
    ranks, ids = tiny_kimi.ranks(), []
    for piece in regex.findall(SPLIT_PATTERN, text):
        whole = piece.encode()
        parts = [whole] if whole in ranks else [bytes([byte]) for byte in whole]
        while True:
            pairs = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
            if not pairs:
                break
            _, i = min(pairs)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_byte_pair_encoding_and_lead_back_to_the_text(tokenizer, text):
    ids = encode(tokenizer, text)
    assert ids == by_hand(text)
    assert tokenizer.decode(ids) == text


# Unassigned characters are left out: which are letters depends on each library's edition of Unicode.
ASSIGNED = some.characters(exclude_categories=["Cn", "Co", "Cs"])


@given(text=some.text(some.sampled_from(list("thehousandyi ngr\n'sé日本12.,<|>")) | ASSIGNED))
def test_any_text_is_encoded_as_by_hand_and_round_trips(tokenizer, text):
    assume(not any(name in text for name in [*special_tokens(), "<|audio|>"]))
    ids = encode(tokenizer, text)
    assert ids == by_hand(text)
    assert tokenizer.decode(ids) == text


def test_merges_are_used_at_all(tokenizer):
    ranks = tiny_kimi.ranks()
    assert encode(tokenizer, "tell the house") == [116, ranks[b"e"], 108, 108, ranks[b" the"], 32, ranks[b"house"]]
    assert encode(tokenizer, "12 1") == [49, 50, 32, 49]  # digits stand alone, although "12" has a rank


def test_special_tokens_have_the_releases_places():
    names = special_tokens()
    assert len(names) == len(set(names)) == SPECIAL_TOKEN_COUNT
    assert {151643 + i: name for i, name in enumerate(names) if 151643 + i in PLACES} == PLACES
    assert names[33 + 1 :] == [f"<|reserved_token_{i}|>" for i in range(20, 407)]
    assert names[5:9] == [f"<|reserved_token_{i}|>" for i in range(4)]


def test_the_placeholder_is_the_first_code_and_every_special_token_is_one_id(tokenizer):
    assert len(tokenizer) == OFFSET + 1
    assert tokenizer.convert_tokens_to_ids("<|audio|>") == OFFSET
    for i, name in enumerate([*special_tokens(), "<|audio|>"]):
        assert encode(tokenizer, f"the{name}the") == [*encode(tokenizer, "the"), FIRST + i, *encode(tokenizer, "the")]
    assert tokenizer.eos_token == "<|im_kimia_text_eos|>"
    assert tokenizer.pad_token_id == OFFSET - 1
    assert tokenizer.bos_token is None
    assert tokenizer("the")["input_ids"] == encode(tokenizer, "the")  # nothing is put around a text
    assert tokenizer.decode([FIRST + 2, *encode(tokenizer, "you"), FIRST + 24], skip_special_tokens=True) == "you"


def test_padding_goes_to_the_left(tokenizer):
    out = tokenizer(["the", "you and the"], padding=True)
    assert out["attention_mask"][0] == [0] * (len(out["input_ids"][1]) - 1) + [1]
    assert out["input_ids"][0][0] == tokenizer.pad_token_id
    assert set(out) == {"input_ids", "attention_mask"}


def test_a_saved_tokenizer_is_read_from_its_own_file(tokenizer, tmp_path: Path):
    tokenizer.save_pretrained(tmp_path)
    assert not (tmp_path / "tiktoken.model").exists()
    again = kimi_tokenizer(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert [encode(again, text) for text in TEXTS] == [encode(tokenizer, text) for text in TEXTS]
    for name in ("chat_template", "eos_token", "pad_token", "padding_side", "model_input_names"):
        assert getattr(again, name) == getattr(tokenizer, name)
    assert again.convert_tokens_to_ids("<|audio|>") == OFFSET


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b"AA== 0\nAQ==\n", "Line 2 of"),
        (b"AA== 0\n*** 1\n", "Line 2 of"),
        (b"AA== zero\n", "Line 1 of"),
        (b"AA== 0\nAQ== 2\n", "does not rank 2 tokens"),
        (b"AA== 0\nAQ== 1\n", "does not rank 2 tokens"),
        (b"", "does not rank 0 tokens"),
    ],
)
def test_a_damaged_rank_file_is_refused(tmp_path, lines, said):
    (tmp_path / "tiktoken.model").write_bytes(lines)
    with pytest.raises(UndersongError, match=said):
        kimi_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UndersongError, match=r"neither tokenizer\.json nor tiktoken\.model"):
        kimi_tokenizer(tmp_path)


def test_a_truncated_rank_file_is_refused(tmp_path):
    file = tiny_kimi.write_ranks(tmp_path / "whole")
    shutil.copy(file, tmp_path / "tiktoken.model")
    kimi_tokenizer(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    (tmp_path / "tiktoken.model").write_bytes(b"".join(lines[:200]))
    with pytest.raises(UndersongError, match="does not rank 200 tokens"):
        kimi_tokenizer(tmp_path)


def render(tokenizer: PreTrainedTokenizerFast, *messages: tuple[str, object], ask: bool = True) -> str:
    said = [{"role": role, "content": content} for role, content in messages]
    text: str = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=ask)
    return text.replace("<|im_kimia_", "<").replace("<|im_", "<").replace("|>", ">")


AUDIO = {"type": "audio"}
HEARD = "<media_begin><|audio><media_end>"


def words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_a_prompt_is_written_as_the_release_writes_it(tokenizer):
    asked = "<user_msg_start>what?<msg_end><assistant_msg_start>"
    assert render(tokenizer, ("user", "what?")) == render(tokenizer, ("user", [words("what?")])) == asked
    assert render(tokenizer, ("user", [AUDIO])) == (
        f"<user_msg_start>{HEARD}<speech_ct_id><msg_end><assistant_msg_start>"
    )
    # Text comes before sound, whatever the order: "the two cannot swap" (kimia_infer/api/kimia.py).
    for pieces in ([AUDIO, words("what?")], [words("what?"), AUDIO]):
        assert render(tokenizer, ("user", pieces)) == (
            f"<user_msg_start>what?{HEARD}<speech_ct_id><msg_end><assistant_msg_start>"
        )
    assert render(tokenizer, ("user", [words("hear:"), AUDIO])) == (
        f"<user_msg_start>hear:{HEARD}<speech_ct_id><msg_end><assistant_msg_start>"
    )


def test_a_turn_is_a_run_of_messages_and_an_answer_ends_with_its_own_token(tokenizer):
    assert render(tokenizer, ("user", "be brief"), ("user", [AUDIO]), ("assistant", "yes"), ask=False) == (
        f"<user_msg_start>be brief{HEARD}<speech_ct_id><msg_end><assistant_msg_start>yes<text_eos><msg_end>"
    )
    assert render(tokenizer, ("user", [AUDIO]), ("user", "what?")) == (
        f"<user_msg_start>{HEARD}what?<msg_end><assistant_msg_start>"
    )
    assert render(tokenizer, ("user", "one"), ("assistant", "two"), ("user", "three")) == (
        "<user_msg_start>one<msg_end><assistant_msg_start>two<text_eos><msg_end>"
        "<user_msg_start>three<msg_end><assistant_msg_start>"
    )


def test_a_text_is_not_trimmed(tokenizer):
    assert render(tokenizer, ("user", [words("  two\n"), words(" lines \n")])) == (
        "<user_msg_start>  two\n lines \n<msg_end><assistant_msg_start>"
    )


def test_what_kimi_does_not_know_is_refused(tokenizer):
    with pytest.raises(TemplateError, match="no system role"):
        render(tokenizer, ("system", "be brief"), ("user", "what?"))
    with pytest.raises(TemplateError, match="not image"):
        render(tokenizer, ("user", [{"type": "image"}]))
