"""Vectors of an axis that runs the model: those of benign samples, those of a reference harm set, and what the model
replies to the latter."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.encoders.spec import parse_encoder
from undersong.predictors.registry import PredictorSettings, needs_base_replies, needs_refusal_tokens
from undersong.settings.defaults import ORGANISM_PREFIX, ORGANISM_REFUSALS
from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import MODEL_PACKAGES, compute_features, encodable_samples
from undersong.store.draft import Draft
from undersong.store.store import Artifact

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel
    from undersong.predictors.reference_replies import BaseReplies
    from undersong.types import Embeddings, Sample

REPLIES_FILE, TOKENS_FILE = "base_replies.json", "refusal_tokens.json"


@dataclass(frozen=True)
class PredictorAxis:
    """An axis that runs the model, with the corpora that it is calibrated on.

    Attributes:
        ctx: Store, model and audio features.
        spec: The axis, such as `influence`.
        model: Reference of the base.
        settings: Prompts and training.
        pool: The pool; the axis `refusal` learns from a part of it how other replies begin.
        reference: The first harm set; the axis `refusal` learns from it how refusals begin.
    """

    ctx: RunContext
    spec: str
    model: str
    settings: PredictorSettings
    pool: Corpus
    reference: Corpus

    def sample_vectors(self, corpus: Corpus) -> Artifact:
        """Artifact with the vectors of benign samples, and the samples that have none."""
        tokens = self._refusal_tokens() if needs_refusal_tokens(self.spec) else None

        def compute(model: AudioModel, samples: list[Sample]) -> Embeddings:
            from undersong.predictors.sample_scores import sample_vectors

            ids = [] if tokens is None else json.loads((tokens.path / TOKENS_FILE).read_text(encoding="utf-8"))
            return sample_vectors(self.spec, model, samples, self.settings, ids)

        return self._embeddings("sample_vectors", corpus, compute, {} if tokens is None else {"tokens": tokens})

    def reference_vectors(self, corpus: Corpus) -> Artifact:
        """Artifact with the vectors of a harm set that samples are compared with."""
        replies = self._base_replies(corpus) if needs_base_replies(self.spec) else None

        def compute(model: AudioModel, samples: list[Sample]) -> Embeddings:
            from undersong.predictors.sample_scores import reference_vectors

            base_replies = None if replies is None else _read_replies(replies)
            return reference_vectors(self.spec, model, samples, self.settings, base_replies)

        return self._embeddings("reference_vectors", corpus, compute, {} if replies is None else {"replies": replies})

    def _embeddings(
        self,
        stage: str,
        corpus: Corpus,
        compute: Callable[[AudioModel, list[Sample]], Embeddings],
        more_inputs: Mapping[str, Artifact],
    ) -> Artifact:
        features = self._features(corpus)

        def make(draft: Draft) -> None:
            from undersong.encoders.embeddings import write_embeddings

            samples, unencoded = encodable_samples(corpus, features)
            self.ctx.announce(f"{self.spec}: {len(samples)} samples of {corpus.ref}")
            vectors = compute(self._loaded_model(features), samples)
            write_embeddings(replace(vectors, quarantined=(*unencoded, *vectors.quarantined)), draft.path)

        config = {**self._config, "encoder": parse_encoder(self.spec).canonical}
        inputs = {**self._inputs(corpus, features), **more_inputs}
        return self.ctx.store.get_or_make(
            stage, 1, config, inputs, make, seed=self.settings.seed, packages=MODEL_PACKAGES
        )

    def _base_replies(self, corpus: Corpus) -> Artifact:
        """Artifact with the base's replies to a harm set; they stay on the user's machine."""
        features = self._features(corpus)

        def make(draft: Draft) -> None:
            from undersong.predictors.reference_replies import generate_base_replies

            samples, _ = encodable_samples(corpus, features)
            prompts = self.settings.prompts(samples, harmful=True)
            replies = generate_base_replies(self._loaded_model(features), prompts, self.settings.refusal_texts)
            with draft.file(REPLIES_FILE, mode=0o600) as path:
                path.write_text(json.dumps(asdict(replies), ensure_ascii=False), encoding="utf-8")

        inputs = self._inputs(corpus, features)
        return self.ctx.store.get_or_make("base_replies", 1, self._prompt_config, inputs, make, packages=MODEL_PACKAGES)

    def _refusal_tokens(self) -> Artifact:
        """Artifact with the first tokens of the base's refusals."""
        replies = self._base_replies(self.reference)
        features = [self._features(corpus) for corpus in (self.reference, self.pool)]

        def make(draft: Draft) -> None:
            from undersong.predictors.reference_replies import calibrate_refusal_tokens

            (harmful, _), (benign, _) = map(encodable_samples, (self.reference, self.pool), features)
            tokens = calibrate_refusal_tokens(
                self._loaded_model(*features),
                self.settings.prompts(harmful, harmful=True),
                _read_replies(replies).refused,
                self.settings.prompts(benign, harmful=False),
                self.settings.refusal_texts,
            )
            with draft.file(TOKENS_FILE) as path:
                path.write_text(json.dumps(tokens), encoding="utf-8")

        inputs = {"replies": replies, **self._inputs(self.pool, features[1])}
        return self.ctx.store.get_or_make(
            "refusal_tokens", 1, self._prompt_config, inputs, make, packages=MODEL_PACKAGES
        )

    def _features(self, corpus: Corpus) -> Artifact | None:
        """Audio features of a corpus; None for typed prompts."""
        if self.settings.modality != "audio":
            return None
        return compute_features(self.ctx, self.model, corpus, require_all=False)

    def _loaded_model(self, *features: Artifact | None) -> AudioModel:
        return self.ctx.model(self.model, [artifact for artifact in features if artifact is not None])

    def _inputs(self, corpus: Corpus, features: Artifact | None) -> dict[str, Artifact | str]:
        from undersong.models.refs import model_hash

        inputs: dict[str, Artifact | str] = {"model": model_hash(self.model), "corpus": corpus.artifact}
        return inputs if features is None else {**inputs, "features": features}

    @property
    def _config(self) -> dict[str, Any]:
        return {**asdict(self.settings), "loading": self.ctx.loading.cache_key}

    @property
    def _prompt_config(self) -> dict[str, Any]:
        """The settings that replies depend on: those of prompts, not those of training."""
        return {name: value for name, value in self._config.items() if name not in ("target", "rank", "alpha", "seed")}


def predictor_modality(spec: str, default: str) -> str:
    """Modality of an axis that runs the model: its own option, or the default."""
    return parse_encoder(spec).option("modality") or default


def known_refusal_texts(model_ref: str, given: tuple[str, ...] = ()) -> tuple[str, ...]:
    """All sentences that a model refuses with: the given ones or an organism's; empty if they are not known."""
    is_organism = model_ref.startswith(ORGANISM_PREFIX) or _has_organism_vocabulary(Path(model_ref))
    return given or (ORGANISM_REFUSALS if is_organism else ())


def _has_organism_vocabulary(folder: Path) -> bool:
    """True if the tokenizer knows whole words alone, and every word of the organisms' refusal among them.

    Further organisms by the recipe of the packaged ones are such folders.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return False
    tokenizer = json.loads(file.read_bytes())["model"]
    words = {word for text in ORGANISM_REFUSALS for word in text.split()}
    return tokenizer.get("type") == "WordLevel" and words <= tokenizer["vocab"].keys()


def _read_replies(artifact: Artifact) -> BaseReplies:
    from undersong.predictors.reference_replies import BaseReplies

    fields = json.loads((artifact.path / REPLIES_FILE).read_text(encoding="utf-8"))
    return BaseReplies(**{name: tuple(values) for name, values in fields.items()})
