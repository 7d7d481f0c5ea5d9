"""`evaluate`: a manifest's items asked and judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.alone.comprehended import encoder_hash, tell, to_tell, write_told
from undersong.pipeline.alone.readied import hear_all, to_ask
from undersong.pipeline.folders import whole, writable, write_provenance
from undersong.pipeline.results.comprehended import with_comprehension
from undersong.pipeline.results.rates import set_rates
from undersong.pipeline.speakers import Speaker, answers_only, make_speaker, shown, speaker_hash
from undersong.study import Comprehension, Evaluation, reply_limit
from undersong.types import Prompt, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.types import Judge

ORGANISM = "organism:"
PROTOCOLS = ("uniform", "published")


@dataclass(frozen=True)
class Question:
    """What a model is asked on a manifest, and who judges.  `system` is the text itself; none: no system turn."""

    set_name: str = "harm"
    harmful: bool = True
    modality: str = "audio"
    system: str | None = None
    instruction: str | None = None
    judge: str = "exact"
    refusals: tuple[str, ...] = ()  # of the exact judge; none: the organism's own, where one is asked
    limit: int | None = None  # new tokens a reply; none: `study.reply_limit`
    first: bool = False  # the instruction stands before the prompt
    comprehension: Comprehension | None = None  # whether requests were heard and replies are to them, where asked

    @property
    def system_name(self) -> str:
        """What prompts, replies and verdicts note of the system text: `plain` where there is none, else `given`."""
        return "plain" if self.system is None else "given"


def under_protocol(question: Question, protocol: str, model: str) -> Question:
    """The question as a study of that protocol would ask it: `published` has the family's own instruction and limit."""
    from undersong.models.identify import family_named
    from undersong.study.protocols import published_manner

    if protocol not in PROTOCOLS:
        raise UndersongError(f"There is no protocol {protocol!r}; take {' or '.join(PROTOCOLS)}.")
    if protocol == "uniform":
        return question
    if question.instruction is not None or question.limit is not None:
        raise UndersongError("The published protocol has its own instruction and limit; leave yours out.")
    manner = published_manner(family_named(model).name, question.modality)
    return replace(question, instruction=manner.instruction, limit=manner.limit, first=manner.first)


def evaluate_manifest(
    manifest: str | Path,
    model: str,
    out: str | Path,
    adapter: str | Path | None = None,
    question: Question = Question(),
    loading: Loading = PLAIN,
) -> dict[str, Any]:
    """Ask a model, under an adapter or not, every item of a manifest; its entry of `sets` in results.json, and what the
    adapter changes outside the language model under `adapted_outside`.

    Writes `replies.parquet` (readable by its owner only), `verdicts.parquet` and `provenance.json` to `out`; of
    comprehension also `repetitions.parquet` (as replies) and `comprehension.parquet`.  Errors, before a model is
    loaded: an item that cannot be asked (a rate is over all prompts) or not be judged.
    """
    from undersong.corpora import corpus_hash
    from undersong.evaluation.judging.named import judge_hash, make_judge
    from undersong.evaluation.judging.plain import FunctionJudge
    from undersong.evaluation.replies import write_replies
    from undersong.evaluation.verdicts import write_verdicts
    from undersong.store import hash_folder

    limit = question.limit or reply_limit(model)
    refusals = refusals_of(question.judge, question.refusals, model)
    judge = make_judge(question.judge, refusals, loading.device, loading.dtype)
    out = writable(Path(out), "evaluate")
    if adapter is not None and answers_only(model):
        raise UndersongError(f"{shown(model)} only answers, and takes no adapter; serve it with the adapter on.")
    worn = None if adapter is None else adapter_folder(Path(adapter))
    samples = to_ask(str(manifest), question.modality)
    prompts = _prompts(samples, question)
    if isinstance(judge, FunctionJudge):
        _rehearse(judge, prompts)
    spoken = to_tell(question, prompts, model)
    with _speaking(model, loading, samples, worn) as (speaker, facts):
        replies = speaker.generate(prompts, limit)
        repeated = speaker.generate(spoken, question.comprehension.limit) if question.comprehension and spoken else []
    verdicts = judge.judge(prompts, replies)
    told = tell(question.comprehension, prompts, replies, verdicts, list(zip(spoken, repeated)), loading.device)
    with whole(out, "evaluate") as folder:
        write_replies(replies, folder / "replies.parquet")
        write_verdicts(verdicts, folder / "verdicts.parquet")
        write_told(folder, told, repeated)
        inputs = {"model": speaker_hash(model), "manifest": corpus_hash(str(manifest))}
        if worn is not None:
            inputs["adapter"] = hash_folder(worn)
        if source := judge_hash(question.judge):
            inputs["judge"] = source
        if source := encoder_hash(question.comprehension):
            inputs["encoder"] = source
        notes = {"model": shown(model), "device": loading.device, **facts}
        write_provenance(
            folder, "evaluate", {**_asked(question), "limit": limit, "loading": loading.key}, inputs, notes
        )
    speakers, finishes = {sample.id: sample.speaker for sample in samples}, [reply.finish for reply in replies]
    (entry,) = set_rates(verdicts, speakers, finishes, list(zip(prompts, replies)))
    if question.comprehension is not None:
        (entry,) = with_comprehension([entry], told, verdicts, question.comprehension)
    return entry | {key: facts[key] for key in ("adapted_outside",) if facts.get(key)}


def _asked(question: Question) -> dict[str, Any]:
    """As provenance says it; without comprehension where nobody asked for it."""
    how, said = question.comprehension, asdict(replace(question, comprehension=None))
    del said["comprehension"]
    return said | ({"comprehension": how.model_dump()} if how else {})


@contextmanager
def _speaking(
    ref: str, loading: Loading, samples: Sequence[Sample], worn: Path | None
) -> Iterator[tuple[Speaker, dict[str, Any]]]:
    """Who answers, and its facts: a model here that has heard the samples, or one that only answers."""
    if answers_only(ref):
        yield make_speaker(ref), {}
        return
    from undersong.models.adapters import reach, saved_adapter
    from undersong.models.load import load_model

    with saved_adapter(load_model(ref, loading), worn, anywhere=True) as tuned:
        hear_all(tuned, samples)  # under the adapter, which may change what is heard
        yield tuned, tuned.facts | {"adapted_outside": reach(tuned)}


def _prompts(samples: Sequence[Sample], question: Question) -> list[Prompt]:
    from undersong.evaluation.prompts import make_prompts

    return make_prompts(
        samples,
        set_name=question.set_name,
        harmful=question.harmful,
        modality=question.modality,
        system=question.system_name,
        system_text=question.system,
        instruction=question.instruction,
        instruction_first=question.first,
    )


def refusals_of(judge: str, given: Sequence[str], model: str) -> Sequence[str]:
    """What the exact judge knows as a refusal; an organism's is known, another model's must be said."""
    if given or judge != "exact":
        return given
    if model.startswith(ORGANISM):
        return Evaluation().refusals
    raise UndersongError(
        f"The exact judge must know how {model} refuses; give --refusal, or take another judge (keyword reads English)."
    )


def _rehearse(judge: Judge, prompts: Sequence[Prompt]) -> None:
    """Judge blank replies, so that a missing answer is found now and not after an hour of generation."""
    from undersong.types import Reply

    judge.judge(prompts, [Reply(p.sample.id, p.set, p.modality, p.system, "", 0, "stop") for p in prompts])


def adapter_folder(folder: Path) -> Path:
    """The folder, where it holds an adapter of PEFT or a decoder tuned whole; UndersongError where neither."""
    from undersong.models.decoder import is_decoder

    if is_decoder(folder):
        return folder
    wanted = ("adapter_config.json", "adapter_model.safetensors")
    if absent := [name for name in wanted if not (folder / name).is_file()]:
        if (folder / "adapter_model.bin").is_file():
            raise UndersongError(
                f"{folder} holds its weights in adapter_model.bin, which may run code when it is read; save the "
                "adapter again as safetensors."
            )
        kept = (one for pattern in ("step-*", "checkpoint-*") for one in sorted(folder.glob(pattern)))
        steps = ", ".join(map(str, kept)) or "one that a trainer wrote"
        raise UndersongError(f"{folder} is no PEFT adapter folder: it holds no {absent[0]}; give {steps}.")
    return folder
