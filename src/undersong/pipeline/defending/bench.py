"""What defenses are made and chosen with: a base, what it hears, and two splits of the contrast sets.

Directions are fitted on one split; places, strengths and layers are chosen on the other; no figure is of either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from undersong.pipeline import stages
from undersong.pipeline.asking import manner_of
from undersong.pipeline.probing.asked import Sides, chosen_behaviours
from undersong.pipeline.probing.replied import Asking
from undersong.pipeline.records import AuditRecord, ModelRecord
from undersong.pipeline.stages import MODEL_PACKAGES, Asked, adapter_folder, prompts_of
from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.store import Artefact, Draft
from undersong.study import Study
from undersong.study.protocols import Manner
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.mechanism import Direction
    from undersong.models.adapter import AudioModel

SPLIT_SEED = 0
BATCH = 32


@dataclass
class Bench:
    """One base of a study."""

    study: Study
    shop: Workshop
    record: AuditRecord
    model: ModelRecord

    @property
    def hash(self) -> str:
        """Hash of the base's weights."""
        from undersong.models.folders import model_hash

        return model_hash(self.model.ref)

    @property
    def ears(self) -> list[Artefact]:
        """What it hears of all that is asked."""
        return [self.hears(corpus) for corpus in self.record.sets.values()]

    def manner(self, modality: str) -> Manner:
        """How it is asked."""
        return manner_of(self.study, self.model.ref, modality)

    def hears(self, corpus: Corpus) -> Artefact:
        """What the base hears of a corpus; the pool may have items that it cannot hear."""
        heard, key = self.model.features, corpus.artefact.hash
        if key not in heard:
            heard[key] = stages.features(self.shop, self.model.ref, corpus, known=list(heard.values()))
        return heard[key]

    def prompts(self, corpus: Corpus, harmful: bool, modalities: Sequence[str]) -> list[Prompt]:
        """Every sample in each of these modalities, as the study asks, under its first system text."""
        text, name = self.study.system_text(self.study.plain), self.study.plain
        return prompts_of([Asked("choosing", corpus, harmful, m, name, text, self.manner(m)) for m in modalities])

    def asking(self) -> Asking:
        """The study's judge, and its limit of a reply."""
        how = self.study.evaluation
        return Asking(self.shop.judge(how.judge, how.refusals), self.manner("audio").limit)

    def sides(self) -> dict[str, Sides]:
        """`fit` and `choose`: the contrast sets by whole behaviours, in all modalities that are evaluated."""
        kept: dict[str, list[list[Prompt]]] = {"fit": [], "choose": []}
        for kind, corpus in self.record.contrast.items():
            chosen = chosen_behaviours(kind, corpus.samples, SPLIT_SEED)
            every = self.prompts(corpus, kind == "harmful", self.study.evaluation.modalities)
            for name, pick in (("fit", False), ("choose", True)):
                kept[name].append([prompt for prompt in every if (prompt.sample.cluster in chosen) == pick])
        return {name: Sides(*sides) for name, sides in kept.items()}

    @property
    def contrast_config(self) -> dict[str, Any]:
        """What files an artefact that is chosen or fitted on the splits."""
        how = self.study.evaluation
        return {
            "modalities": list(how.modalities),
            "system": self.study.system_text(self.study.plain),
            "manners": [str(self.manner(m)) for m in how.modalities],
            "judge": how.judge,
            "refusals": list(how.refusals),
            "loading": self.shop.loading.key,
        }

    @property
    def contrast_inputs(self) -> Inputs:
        """The base's weights and both contrast sets, which such an artefact is made from."""
        return {"model": self.hash, **{name: corpus.artefact for name, corpus in self.record.contrast.items()}}

    @contextmanager
    def tuned(self, adapter: Artefact | None, step: int) -> Iterator[AudioModel]:
        """The base under an adapter, with the contrast sets heard."""
        from undersong.models.adapters import saved_adapter

        model = self.shop.model(self.model.ref, [self.hears(corpus) for corpus in self.record.contrast.values()])
        with saved_adapter(model, adapter_folder(adapter, step)) as worn:
            yield worn


def refused(bench: Bench) -> Artefact:
    """The base's direction on `fit`, and its replies to `choose`: what defenses that go by the refusal are made of."""

    def make(draft: Draft) -> None:
        from undersong.evaluation.replies import write_replies
        from undersong.evaluation.verdicts import write_verdicts
        from undersong.mechanism import fit_direction, save_direction

        sides = bench.sides()
        with bench.tuned(None, 0) as model:
            direction = fit_direction(model.hidden(sides["fit"].harmful), model.hidden(sides["fit"].harmless))
            said = bench.asking().ask(model, sides["choose"].both)
        if not any(said.refused[: len(sides["choose"].harmful)]):
            raise UndersongError(
                f"{bench.model.ref} refuses none of the {len(sides['choose'].harmful)} harmful prompts that defenses "
                "are chosen on, so there is no refusal to bring back; leave steering, removal and projection off the "
                "direction out."
            )
        with draft.file("direction.safetensors") as path:
            save_direction(direction, path)
        with draft.file("replies.parquet", mode=0o600) as path:
            write_replies(said.replies, path)
        with draft.file("verdicts.parquet") as path:
            write_verdicts(said.verdicts, path)

    config, inputs = bench.contrast_config, bench.contrast_inputs
    for corpus in bench.record.contrast.values():
        bench.hears(corpus)
    return bench.shop.store.get_or_make("refused", 1, config, inputs, make, packages=MODEL_PACKAGES)


def direction_of(found: Artefact) -> Direction:
    """Of what `refused` made."""
    from undersong.mechanism import load_direction

    return load_direction(found.checked().path / "direction.safetensors")


def own_words(found: Artefact, choose: Sides) -> tuple[list[tuple[Prompt, str]], list[tuple[Prompt, str]]]:
    """What the base says to the choosing split: harmful prompts that it refused, and harmless ones that it did not."""
    from undersong.evaluation.replies import read_replies
    from undersong.evaluation.verdicts import read_verdicts

    replies = read_replies(found.checked().path / "replies.parquet")
    verdicts = read_verdicts(found.path / "verdicts.parquet")
    said = [
        (prompt, reply.reply, verdict.verdict == "refusal")
        for prompt, reply, verdict in zip(choose.both, replies, verdicts, strict=True)
        if reply.reply
    ]
    refusals = [(prompt, reply) for prompt, reply, refused in said if prompt.harmful and refused]
    answers = [(prompt, reply) for prompt, reply, refused in said if not prompt.harmful and not refused]
    return refusals, answers


def likelihood_cost(model: AudioModel, said: Sequence[tuple[Prompt, str]]) -> float:
    """Mean cost of a token of these replies; 0 of none."""
    from undersong.tuning.held_out import mean_loss

    return mean_loss(model, [prompt for prompt, _ in said], [reply for _, reply in said], BATCH) if said else 0.0
