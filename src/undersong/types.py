"""Records shared by all packages (samples, prompts, replies, verdicts, embeddings) and the encoder, model and judge
protocols. Imports no other module of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

VERDICTS = ("jailbreak", "answer", "refusal", "other", "unparsed", "error")
MODALITIES = ("audio", "text")
MAX_SEED = 2**32 - 1  # that numpy and torch both take; the smallest is 0


class UndersongError(Exception):
    """Something the user can mend: one sentence of what happened, to which item, and what to do (exit code 2)."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A decoded signal: `samples` (n,) float32 mono in [-1, 1] at `rate` Hz."""

    id: str
    samples: np.ndarray
    rate: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a corpus: spoken (`audio`: a path, or the bytes of an audio file), written (`text`), or both."""

    id: str
    audio: str | bytes | None = None
    text: str | None = None
    answer: str | None = None  # the reply to train on, or the right reply
    answers: tuple[str, ...] = ()  # every reply that counts as complying (exact judge); empty: `answer` alone
    speaker: str | None = None
    group: str | None = None  # the behavior or question: what an independent unit (cluster) is
    seconds: float | None = None
    pcm_hash: str | None = None  # SHA-256 of the decoded samples
    labels: tuple[tuple[str, str], ...] = ()  # further columns of the manifest, for `where:` filters and balance

    @property
    def cluster(self) -> str:
        """What an independent unit is: the group where there is one, else the sample itself."""
        return self.group if self.group is not None else self.id

    def column(self, name: str) -> str | None:
        """A manifest column by name, fixed ones and labels alike; None where this sample has none."""
        fixed = {"answer": self.answer, "text": self.text, "speaker": self.speaker, "group": self.group}
        return fixed[name] if name in fixed else dict(self.labels).get(name)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An item left out, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to a model: a sample asked in one modality under one system text."""

    sample: Sample
    set: str
    harmful: bool
    modality: str  # audio | text
    system: str  # the system text's *name* in the study, "plain" being the default
    system_text: str | None = None
    instruction: str | None = None  # typed beside the audio, where the study has one
    instruction_first: bool = False  # before the audio instead of after it

    @property
    def user_text(self) -> str:
        """The text of the user's turn: what is asked in writing, and the instruction; empty: speech alone."""
        prompt_text = self.sample.text if self.modality == "text" else None
        parts = (self.instruction, prompt_text) if self.instruction_first else (prompt_text, self.instruction)
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said: new tokens only."""

    prompt_id: str
    set: str
    modality: str
    system: str
    reply: str
    tokens: int
    finish: str  # stop | length | error
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge called a reply; the key is (prompt_id, modality, system, judge)."""

    prompt_id: str
    set: str
    harmful: bool
    cluster: str
    modality: str
    system: str
    judge: str
    verdict: str  # one of VERDICTS
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of one corpus by one encoder: `vectors` (n, dim) float32, `frames` (n,) valid ones (0: text)."""

    ids: tuple[str, ...]
    vectors: np.ndarray
    frames: np.ndarray
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True)
class PooledVector:
    """One clip's vector (dim,) float32 and how many valid frames it is the mean of; with 0 there is no vector."""

    vector: np.ndarray
    frames: int


class Encoder(Protocol):
    """Samples -> one vector each.  Named by what it is; what cannot be embedded is quarantined, never guessed."""

    @property
    def name(self) -> str:
        """What it is (`tfidf`, `logmel`, …), as errors and artifacts say it; not the axis it stands for."""
        ...

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Vectors in the order of the samples; those without one are in `quarantined`, and none is in neither."""
        ...


class PoolingEncoder(Protocol):
    """What an internal encoder needs of a model."""

    def pool(self, clips: Sequence[Clip]) -> list[PooledVector]:
        """The mean of what is heard of each clip, over its own frames: padding never enters."""
        ...


class Judge(Protocol):
    """Prompts and their replies -> verdicts.

    `sees`: `harm`; `refusal`, where non-refusal is all it can tell; or `use`, of benign prompts alone.
    """

    @property
    def name(self) -> str:
        """What its own verdicts carry as `judge`; those that it leaves to another judge carry that one's name."""
        ...

    @property
    def sees(self) -> str:
        """`harm` | `refusal` | `use`; with `refusal` the share of `jailbreak` verdicts is a non-refusal rate, not a
        JSR."""
        ...

    def judge(self, prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[Verdict]:
        """One verdict a reply, in order; what failed or cannot be read is `error` or `unparsed` and stays."""
        ...
