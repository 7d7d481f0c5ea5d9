"""What a model is asked and says, and what a judge calls it.  Knows replies and verdicts on disk; makes neither."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.pipeline.speakers import Speaker, answers_only, make_speaker, shown, speaker_hash
from undersong.pipeline.stages.arms import Arm
from undersong.pipeline.stages.heard import MODEL_PACKAGES
from undersong.pipeline.workshop import Corpus, Workshop
from undersong.store import Artefact, Draft
from undersong.study.protocols import Manner
from undersong.types import Prompt, Reply, Verdict

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel


@dataclass(frozen=True)
class Asked:
    """A set asked in one modality under one system text.  `judge`: of its own, where it has one."""

    set: str
    corpus: Corpus
    harmful: bool
    modality: str
    system: str
    system_text: str | None
    manner: Manner
    judge: str | None = None

    @property
    def key(self) -> list[Any]:
        """What replies depend on beside the model and the corpus."""
        return [self.set, self.harmful, self.modality, self.system, self.system_text, list(astuple(self.manner))]


def replies(
    shop: Workshop,
    arm: Arm,
    adapter: Artefact | None,
    step: int,
    asked: Sequence[Asked],
    heard: Sequence[Artefact],
    steering: Artefact | None = None,
) -> Artefact:
    """Greedy replies of a model (with the adapter of `step`) to everything asked; stays on the user's machine.

    `steering`: of what `stages.steering` chose.
    """

    def make(draft: Draft) -> None:
        from undersong.evaluation.replies import write_replies

        with _speaking(shop, arm.model, heard, adapter, step, steering) as (speaker, facts):
            said = [reply for limit, group in by_limit(asked) for reply in speaker.generate(prompts_of(group), limit)]
        with draft.file("replies.parquet", mode=0o600) as path:
            write_replies(said, path)
        draft.note(**facts)

    inputs: dict[str, Artefact | str] = {"model": speaker_hash(arm.model)}
    inputs |= {f"corpus:{one.set}": one.corpus.artefact for one in asked}
    if adapter is not None:
        inputs["adapter"] = adapter
    if steering is not None:
        inputs["steering"] = steering
    sets = [one.key for one in in_order(asked)]
    config = {"sets": sets, "step": step, "loading": {} if answers_only(arm.model) else shop.loading.key}
    packages = () if answers_only(arm.model) else MODEL_PACKAGES
    return shop.store.get_or_make("replies", 2, config, inputs, make, packages=packages)


@contextmanager
def _speaking(
    shop: Workshop,
    ref: str,
    heard: Sequence[Artefact],
    adapter: Artefact | None,
    step: int,
    steering: Artefact | None,
) -> Iterator[tuple[Speaker, dict[str, Any]]]:
    """Who answers, and what its replies note of it: a model here, under an adapter or not, or one that only answers."""
    if answers_only(ref):
        yield make_speaker(ref), {"model": shown(ref)}
        return
    from undersong.models.adapters import saved_adapter

    model = shop.model(ref, heard)
    with saved_adapter(model, adapter_folder(adapter, step)) as tuned, steered(tuned, steering):
        yield tuned, model.facts


@contextmanager
def steered(model: AudioModel, steering: Artefact | None) -> Iterator[None]:
    """The chosen vector added at the chosen place of a running model; nothing where none was chosen."""
    from safetensors.numpy import load_file

    from undersong.mechanism.interventions import addition, changed

    vectors = {} if steering is None else load_file(steering.checked().path / "steering.safetensors")
    changes = {int(place): addition(vector) for place, vector in vectors.items()}
    with changed(model.decoder.layers, changes):
        yield


def by_limit(asked: Sequence[Asked]) -> list[tuple[int, list[Asked]]]:
    """What is asked, by most tokens of a reply: one batch of generation each."""
    groups: dict[int, list[Asked]] = {}
    for one in asked:
        groups.setdefault(one.manner.limit, []).append(one)
    return list(groups.items())


def in_order(asked: Sequence[Asked]) -> list[Asked]:
    """What is asked in the order of its replies."""
    return [one for _, group in by_limit(asked) for one in group]


def adapter_folder(adapter: Artefact | None, step: int) -> Path | None:
    """The PEFT folder kept at a step (`tuning.lora.step_folder`, without loading torch); None: the base."""
    return None if adapter is None else adapter.path / f"step-{step:06d}"


def prompts_of(asked: Sequence[Asked]) -> list[Prompt]:
    """Every prompt of what is asked, in order."""
    from undersong.evaluation.prompts import make_prompts

    return [
        prompt
        for one in asked
        for prompt in make_prompts(
            one.corpus.samples,
            set_name=one.set,
            harmful=one.harmful,
            modality=one.modality,
            system=one.system,
            system_text=one.system_text,
            instruction=one.manner.instruction,
            instruction_first=one.manner.first,
        )
    ]


def verdicts(
    shop: Workshop, replies: Artefact, asked: Sequence[Asked], judge: str, refusals: Sequence[str]
) -> Artefact:
    """What the judge calls every reply; a set that has a judge of its own is that one's."""
    from undersong.evaluation.judging.named import judge_hash

    judges = dict.fromkeys(one.judge or judge for one in asked)

    def make(draft: Draft) -> None:
        from undersong.evaluation.replies import read_replies
        from undersong.evaluation.verdicts import write_verdicts

        said = iter(read_replies(replies.checked().path / "replies.parquet"))
        # (place, prompt, reply) of every judge, so that verdicts stand in the order of the replies again
        rows: dict[str, list[tuple[int, Prompt, Reply]]] = {name: [] for name in judges}
        place = 0
        for one in in_order(asked):
            for prompt in prompts_of([one]):
                rows[one.judge or judge].append((place, prompt, next(said)))
                place += 1
        called: dict[int, Verdict] = {}
        for name, mine in rows.items():
            found = shop.judge(name, refusals).judge([p for _, p, _ in mine], [r for _, _, r in mine])
            called |= {at: verdict for (at, _, _), verdict in zip(mine, found, strict=True)}
        with draft.file("verdicts.parquet") as path:
            write_verdicts([called[i] for i in range(place)], path)

    config = {
        "judge": judge,
        "refusals": list(refusals),
        "sets": [[a.set, a.modality, a.system, a.judge] for a in in_order(asked)],
    }
    inputs: dict[str, Artefact | str] = {"replies": replies}
    for name in judges:
        if source := judge_hash(name):
            inputs["weights" if name == judge else f"weights:{name}"] = source
    return shop.store.get_or_make("verdicts", 2, config, inputs, make)
