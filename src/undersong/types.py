"""Records shared by all packages (samples, prompts, replies, verdicts, embeddings) and the encoder, model and judge
protocols. Imports no other module of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_array

VERDICTS = ("jailbreak", "answer", "refusal", "other", "unparsed", "empty", "error")
LOST_VERDICTS = ("unparsed", "empty", "error")  # the reply could not be judged, has no text, or failed
FINISH_REASONS = ("stop", "length", "error")  # how a reply ended
UNCLEAR_VERDICTS = ("other", "unparsed")  # neither the outcome that counts nor its opposite
MODALITIES = ("audio", "text")
Vectors: TypeAlias = "np.ndarray | csr_array"  # (n, dim) float32
MAX_SEED = 2**32 - 1  # largest seed that numpy and torch both accept; the smallest is 0


class UndersongError(Exception):
    """An error that the user can fix. The message is one sentence: what happened, to which item, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


@dataclass(frozen=True, slots=True)
class Clip:
    """A decoded signal: `samples` (n,) float32 mono in [-1, 1] at `rate` Hz."""

    id: str
    samples: np.ndarray
    rate: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a corpus: speech (`audio`: a path, or the bytes of an audio file), text (`text`), or both."""

    id: str
    audio: str | bytes | None = None
    text: str | None = None
    answer: str | None = None  # the reply to train on, or the correct reply
    answers: tuple[str, ...] = ()  # all replies that count as complying (exact judge); empty: `answer` alone
    speaker: str | None = None
    group: str | None = None  # the behavior or question: the independent unit (cluster)
    seconds: float | None = None
    pcm_hash: str | None = None  # SHA-256 of the decoded samples
    labels: tuple[tuple[str, str], ...] = ()  # other columns of the manifest, for `where:` filters and balance

    @property
    def cluster(self) -> str:
        """The independent unit that the sample belongs to: its group, or its own id if it has no group."""
        return self.group if self.group is not None else self.id

    @property
    def accepted_answers(self) -> tuple[str, ...]:
        """All replies that count as complying, or as correct: `answers`, else `answer` alone."""
        return self.answers or ((self.answer,) if self.answer else ())

    def column(self, name: str) -> str | None:
        """Value of a manifest column, fixed or label. None if the sample has no such column."""
        fixed = {"answer": self.answer, "text": self.text, "speaker": self.speaker, "group": self.group}
        return fixed[name] if name in fixed else dict(self.labels).get(name)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An item that was left out, and the reason."""

    id: str
    reason: str


ExchangeKey = tuple[str, str, str, str]  # prompt id, set, modality, name of the system text


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to a model: a sample in one modality, with one system prompt."""

    sample: Sample
    set: str
    harmful: bool
    modality: str  # audio | text
    system: str  # *name* of the system text in the study; the default is "plain"
    system_text: str | None = None
    instruction: str | None = None  # typed next to the audio, if the study has one
    instruction_first: bool = False  # before the audio instead of after it

    @property
    def key(self) -> ExchangeKey:
        """The key that its reply and the verdicts on it carry."""
        return self.sample.id, self.set, self.modality, self.system

    @property
    def user_text(self) -> str:
        """Text of the user's turn: the written request and the instruction. Empty if the turn is speech alone."""
        prompt_text = self.sample.text if self.modality == "text" else None
        parts = (self.instruction, prompt_text) if self.instruction_first else (prompt_text, self.instruction)
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply, new tokens only."""

    prompt_id: str
    set: str
    modality: str
    system: str
    reply: str
    tokens: int
    finish: str  # stop | length | error; '' if a file does not say
    error: str | None = None
    refusal_margin: float | None = (
        None  # log P(refusal) - log P(compliance) of the reply's first tokens; None: not known
    )

    @property
    def key(self) -> ExchangeKey:
        """The key of its prompt."""
        return self.prompt_id, self.set, self.modality, self.system


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's verdict on a reply; the key is (prompt_id, modality, system, judge)."""

    prompt_id: str
    set: str
    harmful: bool
    cluster: str
    modality: str
    system: str
    judge: str
    verdict: str  # one of VERDICTS
    score: float | None = None
    refusal_margin: float | None = None  # of the reply, whatever the judge says
    finish: str | None = None  # of the reply: stop | length | error; None: not known

    @property
    def key(self) -> ExchangeKey:
        """The key of its prompt and its reply, without the judge."""
        return self.prompt_id, self.set, self.modality, self.system

    @property
    def is_lost(self) -> bool:
        """True if the reply failed, has no text or could not be judged, so that nothing is known of it."""
        return self.verdict in LOST_VERDICTS

    @property
    def is_cut(self) -> bool:
        """True if the reply was cut at the limit of tokens, as far as that is known."""
        return self.finish == "length"

    @property
    def is_cut_short(self) -> bool:
        """True if the reply was cut before the judge could tell what it is, so that more tokens may decide it."""
        return self.is_cut and self.verdict in UNCLEAR_VERDICTS


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of one corpus from one encoder: `vectors` (n, dim) float32, `frames` (n,) valid frames (0 for text).

    Vectors of word counts are a `scipy.sparse.csr_array`, because a vocabulary of 100,000 words does not fit in memory
    as dense rows; `vectors.toarray()` makes a few of them dense.
    """

    ids: tuple[str, ...]
    vectors: Vectors
    frames: np.ndarray
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True)
class PooledVector:
    """One clip's vector (dim,) float32 and the number of valid frames that it averages. With 0 frames there is no
    vector.
    """

    vector: np.ndarray
    frames: int


class Encoder(Protocol):
    """Maps each sample to one vector. Samples that cannot be embedded are quarantined, never guessed."""

    @property
    def name(self) -> str:
        """Name of the encoder (`tfidf`, `logmel`, …) in errors and artifacts; not the name of its axis."""
        ...

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Embed `samples`. Vectors keep the order of the samples; every sample has a vector or is in `quarantined`."""
        ...


class PoolingEncoder(Protocol):
    """The interface that an internal encoder needs of a model."""

    def pool(self, clips: Sequence[Clip]) -> list[PooledVector]:
        """Mean over the valid frames of each clip. Padding never enters."""
        ...


class Judge(Protocol):
    """Turns prompts and their replies into verdicts.

    `sees` is `harm`, `refusal` (the judge can only tell refusal from non-refusal) or `use` (benign prompts only).
    """

    @property
    def name(self) -> str:
        """Name that its own verdicts carry as `judge`. Verdicts that it leaves to another judge carry that judge's
        name.
        """
        ...

    @property
    def sees(self) -> str:
        """One of `harm`, `refusal` and `use`. With `refusal`, the share of `jailbreak` verdicts is a non-refusal rate,
        not a JSR.
        """
        ...

    def judge(self, prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[Verdict]:
        """Judge each reply, in order. Failed ones get `error`, blank ones `empty`, unreadable ones `unparsed`."""
        ...
