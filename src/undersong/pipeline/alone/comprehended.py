"""Of one manifest's prompts: whether they were heard, and what the replies are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from undersong.stages.black_box_models import RECORDED, display_reference
from undersong.study import Comprehension
from undersong.types import Prompt, Reply, UndersongError, Verdict

if TYPE_CHECKING:
    from undersong.evaluation.comprehension.table import PromptComprehension
    from undersong.pipeline.standalone.evaluate import EvaluationOptions
    from undersong.types import Encoder


def comprehension_options(encoder: str | None, **options: Any) -> Comprehension | None:
    """By a verb's options, None standing for a default; `encoder` turns it on.  Raises UndersongError."""
    settings = {key: value for key, value in options.items() if value is not None}
    if encoder is None:
        if settings:
            raise UndersongError("How comprehension is told was said, and not by which encoder; add --comprehension.")
        return None
    try:
        return Comprehension(encoder=encoder, **settings)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        raise UndersongError(f"Comprehension's {location}: {first['msg'].removeprefix('Value error, ')}.") from None


def comprehension_prompts(options: EvaluationOptions, prompts: Sequence[Prompt], model: str) -> list[Prompt]:
    """What is to be repeated.  Raises UndersongError where comprehension cannot be told, before a model is loaded."""
    from undersong.evaluation.comprehension.measured import check_comprehension, make_repetition_prompts

    comprehension = options.comprehension
    if comprehension is None:
        return []
    if not options.harmful:
        raise UndersongError("Comprehension is told of harmful prompts; leave it out, or the prompts are not --benign.")
    if model.startswith(RECORDED):
        raise UndersongError(
            f"{display_reference(model)} cannot be asked to repeat what it heard; leave --comprehension out."
        )
    check_comprehension(prompts, comprehension)
    return make_repetition_prompts(prompts, comprehension)


def comprehension_encoder_hash(comprehension: Comprehension | None) -> str:
    """What its encoder's vectors depend on beside the prompts; empty: nothing."""
    from undersong.encoders.registry import encoder_weights_hash
    from undersong.encoders.spec import parse_encoder

    return "" if comprehension is None else encoder_weights_hash(parse_encoder(comprehension.encoder)) or ""


def measure_comprehension(
    comprehension: Comprehension | None,
    prompts: Sequence[Prompt],
    replies: Sequence[Reply],
    verdicts: Sequence[Verdict],
    repetitions: Sequence[tuple[Prompt, Reply]],
    device: str,
) -> list[PromptComprehension]:
    """One a prompt; none where nobody asked."""
    if comprehension is None:
        return []
    from undersong.encoders import make_encoder
    from undersong.evaluation.comprehension.measured import measure_prompt_comprehension

    def encoder() -> Encoder:
        return make_encoder(comprehension.encoder, fit=[prompt.sample for prompt in prompts], device=device)

    return measure_prompt_comprehension(
        list(zip(prompts, replies, verdicts, strict=True)), repetitions, comprehension, encoder
    )


def write_comprehension_files(folder: Path, rows: Sequence[PromptComprehension], repetitions: Sequence[Reply]) -> None:
    """`comprehension.parquet`, and `repetitions.parquet`, which its owner alone reads; nothing where nobody asked."""
    from undersong.evaluation.comprehension.table import write_comprehension
    from undersong.evaluation.replies import write_replies

    if rows:
        write_comprehension(rows, folder / "comprehension.parquet")
    if repetitions:
        write_replies(repetitions, folder / "repetitions.parquet")
