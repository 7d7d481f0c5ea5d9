"""Run context of the stages: the artifact store, corpora in it, and one model in memory. Knows no stage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.store import Artifact, Draft, Inputs, Store, canonical_json
from undersong.types import Judge, Quarantined, Sample

if TYPE_CHECKING:
    from undersong.corpora import Manifest
    from undersong.corpora.audio_metadata import Fingerprints
    from undersong.encoders.batching import ProgressCallback
    from undersong.models.audio_features import AudioFeatures
    from undersong.models.audio_lm import AudioModel

FILE_HASHES_FOLDER = "known"  # folder of the store with hashes of unchanged files


class ArtifactStore(Protocol):
    """Store as stages use it: a `Store`, or the `PlanningStore` of a plan, which finds artifacts and makes none."""

    def get_or_make(
        self,
        stage: str,
        version: int | str,
        config: Any,
        inputs: Inputs,
        make: Callable[[Draft], None],
        *,
        seed: int | None = None,
        packages: Sequence[str] = (),
    ) -> Artifact:
        """Find or make an artifact, as `Store.get_or_make`; a `PlanningStore` never calls `make`, and its folder may
        not exist.

        Args:
            stage: Name of the stage.
            version: Version of the stage.
            config: Options that the artifact depends on.
            inputs: Artifacts and hashes that it depends on.
            make: Writes the artifact into a draft.
            seed: Seed, recorded with the artifact.
            packages: Packages whose versions are recorded.
        """
        ...


@dataclass
class Corpus:
    """Corpus artifact; its samples are read on first use (a plan never reads them)."""

    ref: str
    artifact: Artifact

    @cached_property
    def _manifest(self) -> Manifest:
        from undersong.corpora import read_manifest

        return read_manifest(self.artifact.verify().path / "corpus.parquet")

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Audio fingerprints by id; empty if the audio was not decoded."""
        from undersong.corpora.audio_metadata import read_fingerprints

        return read_fingerprints(self.artifact.verify().path)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Samples that can be used."""
        return self._manifest.samples

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """Samples that cannot be used, with reasons."""
        return self._manifest.quarantined


@dataclass
class RunContext:
    """Store, and one model at a time in memory, with its cached audio features."""

    store: ArtifactStore
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS
    say: Callable[[str], None] | None = None  # receives progress lines of long stages
    unread: bool = False  # hash a corpus that is not here by its name: for plans, which make nothing
    _judge: tuple[str, Judge] | None = field(default=None, repr=False)  # a judge that is a model
    _light_judges: dict[str, Judge] = field(default_factory=dict, repr=False)
    _model: AudioModel | None = field(default=None, repr=False)
    _features: dict[str, dict[str, Artifact]] = field(default_factory=dict, repr=False)  # by model

    def content_hash(self, ref: str, columns: Mapping[str, str] | None = None) -> str:
        """Hash of all files that a corpus is read from; with `unread`, of its name if it is not here."""
        from undersong.corpora import corpus_hash, is_local_corpus

        if self.unread and not is_local_corpus(ref):
            return hashlib.sha256(canonical_json(["not read", ref, dict(columns or {})]).encode()).hexdigest()
        cache_folder = self.store.root / FILE_HASHES_FOLDER if isinstance(self.store, Store) else None
        return corpus_hash(ref, columns, cache_folder)

    def judge(self, name: str, refusals: Sequence[str]) -> Judge:
        """Judge of a name, made once. A judge that is a model replaces the audited model in memory."""
        from undersong.evaluation.judges.registry import make_judge
        from undersong.study.judge_names import judge_weights

        key = f"{name} {list(refusals)}"
        if not judge_weights(name):
            if key not in self._light_judges:
                self._light_judges[key] = make_judge(name, refusals)
            return self._light_judges[key]
        if self._judge is None or self._judge[0] != key:
            self._model = None
            self._judge = key, make_judge(name, refusals, self.loading.device, self.loading.dtype)
        return self._judge[1]

    def announce(self, line: str) -> None:
        """Report the next step, if there is a listener."""
        if self.say is not None:
            self.say(line)

    def watcher(self, description: str) -> ProgressCallback | None:
        """Progress callback for a pass over many items; None if `say` is None."""
        from undersong.encoders.batching import progress_lines

        return None if self.say is None else progress_lines(description, self.say)

    def model(self, ref: str, features: Sequence[Artifact] = ()) -> AudioModel:
        """Loaded model, with cached audio features from the feature artifacts."""
        from undersong.models.load import load_model

        if self._model is None or self._model.name != ref:
            self._model = self._judge = None  # free the old model before loading the new one
            self._model = load_model(ref, self.loading)
        for artifact in features:
            self._model.load_cached_features(artifact.hash, _features_loader(artifact.path))
        return self._model

    def features(self, ref: str) -> dict[str, Artifact]:
        """The audio features that `compute_features` has made of a model so far, by the hash of their corpus."""
        return self._features.setdefault(ref, {})

    def model_with_audio(self, ref: str, corpora: Sequence[Corpus]) -> AudioModel:
        """The model with the audio features of these corpora, as far as they were computed."""
        features = self.features(ref)
        hashes = dict.fromkeys(corpus.artifact.hash for corpus in corpora)
        return self.model(ref, [features[key] for key in hashes if key in features])


def _features_loader(folder: Path) -> Callable[[], dict[str, AudioFeatures]]:
    from undersong.models.feature_cache import load_features

    return lambda: {k: v for file in sorted(folder.glob("heard-*")) for k, v in load_features(file).items()}
