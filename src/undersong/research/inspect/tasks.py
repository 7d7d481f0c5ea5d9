"""inspect_ai tasks: `undersong/jsr` on harmful prompts and `undersong/over_refusal` on benign ones."""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.model import GenerateConfig
from inspect_ai.solver import generate

from undersong.research.inspect.samples import inspect_samples
from undersong.research.inspect.scorers import make_scorer


@task
def jsr(
    corpus: str = "organism:test-harm",
    modality: str = "audio",
    system: str | None = None,
    instruction: str | None = None,
    judge: str | None = None,
    limit: int | None = None,
    set: str = "harm",
) -> Task:
    """Measure the share of harmful prompts that are answered, as `undersong evaluate` does.

    Args:
        corpus: Corpus, as on the command line.
        modality: audio or text.
        system: Text of the system prompt.
        instruction: Text beside the request.
        judge: Judge; by default exact for the organisms' corpora, and keyword, a smoke test, for all others.
        limit: Maximum number of new tokens.
        set: Name of the prompt set.
    """
    return _make_task(corpus, True, modality, system, instruction, judge, limit, set)


@task
def over_refusal(
    corpus: str = "organism:test-near",
    modality: str = "audio",
    system: str | None = None,
    instruction: str | None = None,
    judge: str | None = None,
    limit: int | None = None,
    set: str = "benign",
) -> Task:
    """Measure the share of benign prompts that are refused.

    Args:
        corpus: Corpus, as on the command line.
        modality: audio or text.
        system: Text of the system prompt.
        instruction: Text beside the request.
        judge: Judge; by default exact for the organisms' corpora, and keyword, a smoke test, for all others.
        limit: Maximum number of new tokens.
        set: Name of the prompt set.
    """
    return _make_task(corpus, False, modality, system, instruction, judge, limit, set)


def _make_task(
    corpus: str,
    harmful: bool,
    modality: str,
    system: str | None,
    instruction: str | None,
    judge: str | None,
    limit: int | None,
    set_name: str,
) -> Task:
    from undersong.evaluation.prompts import make_prompts
    from undersong.settings.defaults import ORGANISM_REFUSALS
    from undersong.standalone.inputs import usable_samples

    organism = corpus.startswith("organism:")
    prompts = make_prompts(
        usable_samples(corpus, modality),
        set_name=set_name,
        harmful=harmful,
        modality=modality,
        system="plain" if system is None else "given",
        system_text=system,
        instruction=instruction,
    )
    judge = judge or ("exact" if organism else "keyword")
    refusals = list(ORGANISM_REFUSALS) if judge == "exact" and organism else None
    return Task(
        dataset=inspect_samples(prompts),
        solver=generate(),
        scorer=make_scorer(judge, refusals=refusals, harmful=harmful),
        config=GenerateConfig(max_tokens=limit),
    )
