"""Of one manifest's prompts: whether they were heard, and what the replies are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from undersong.pipeline.speakers import RECORDED, shown
from undersong.study import Comprehension
from undersong.types import Prompt, Reply, UndersongError, Verdict

if TYPE_CHECKING:
    from undersong.evaluation.comprehension.table import Comprehended
    from undersong.pipeline.alone.evaluated import Question
    from undersong.types import Encoder


def comprehension_of(encoder: str | None, **given: Any) -> Comprehension | None:
    """By a verb's options, None standing for a default; `encoder` turns it on.  Raises UndersongError."""
    wanted = {key: value for key, value in given.items() if value is not None}
    if encoder is None:
        if wanted:
            raise UndersongError("How comprehension is told was said, and not by which encoder; add --comprehension.")
        return None
    try:
        return Comprehension(encoder=encoder, **wanted)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UndersongError(f"Comprehension's {where}: {first['msg'].removeprefix('Value error, ')}.") from None


def to_tell(question: Question, prompts: Sequence[Prompt], model: str) -> list[Prompt]:
    """What is to be repeated.  Raises UndersongError where comprehension cannot be told, before a model is loaded."""
    from undersong.evaluation.comprehension.measured import check_comprehension, to_repeat

    how = question.comprehension
    if how is None:
        return []
    if not question.harmful:
        raise UndersongError("Comprehension is told of harmful prompts; leave it out, or the prompts are not --benign.")
    if model.startswith(RECORDED):
        raise UndersongError(f"{shown(model)} cannot be asked to repeat what it heard; leave --comprehension out.")
    check_comprehension(prompts, how)
    return to_repeat(prompts, how)


def encoder_hash(how: Comprehension | None) -> str:
    """What its encoder's vectors depend on beside the prompts; empty: nothing."""
    from undersong.encoders.options import parse_encoder
    from undersong.encoders.weights import encoder_weights_hash

    return "" if how is None else encoder_weights_hash(parse_encoder(how.encoder)) or ""


def tell(
    how: Comprehension | None,
    prompts: Sequence[Prompt],
    replies: Sequence[Reply],
    verdicts: Sequence[Verdict],
    repeated: Sequence[tuple[Prompt, Reply]],
    device: str,
) -> list[Comprehended]:
    """One a prompt; none where nobody asked."""
    if how is None:
        return []
    from undersong.encoders import make_encoder
    from undersong.evaluation.comprehension.measured import comprehended

    def encoder() -> Encoder:
        return make_encoder(how.encoder, fit=[prompt.sample for prompt in prompts], device=device)

    return comprehended(list(zip(prompts, replies, verdicts, strict=True)), repeated, how, encoder)


def write_told(folder: Path, told: Sequence[Comprehended], repeated: Sequence[Reply]) -> None:
    """`comprehension.parquet`, and `repetitions.parquet`, which its owner alone reads; nothing where nobody asked."""
    from undersong.evaluation.comprehension.table import write_comprehension
    from undersong.evaluation.replies import write_replies

    if told:
        write_comprehension(told, folder / "comprehension.parquet")
    if repeated:
        write_replies(repeated, folder / "repetitions.parquet")
