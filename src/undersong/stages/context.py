"""Run context of the stages: the artifact store, corpora in it, and one model in memory. Knows no stage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.models.out_of_memory import release_memory
from undersong.settings.defaults import LOCAL_ENGINE
from undersong.store.draft import Draft
from undersong.store.hashing import canonical_json
from undersong.store.store import Artifact, Inputs, Store
from undersong.types import Judge, Quarantined, Sample

if TYPE_CHECKING:
    from undersong.corpora.audio_metadata import Fingerprints
    from undersong.corpora.manifest import Manifest
    from undersong.encoders.batching import ProgressCallback
    from undersong.models.audio_features import AudioFeatures
    from undersong.models.audio_lm import AudioModel

IMPORTED_ADAPTER = "imported-adapter"  # stage of an adapter that was made elsewhere
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
        from undersong.corpora.manifest import read_manifest

        return read_manifest(self.artifact.path / "corpus.parquet")

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Audio fingerprints by id; empty if the audio was not decoded."""
        from undersong.corpora.audio_metadata import read_fingerprints

        return read_fingerprints(self.artifact.path)

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
    engine: str = field(default=LOCAL_ENGINE, kw_only=True)  # what generates the replies of local models
    note: Callable[[str], None] | None = field(default=None, kw_only=True)  # receives notes on corpora, else `say`
    unread: bool = False  # hash a corpus that is not here by its name: for plans, which make nothing
    _judge: tuple[str, Judge] | None = field(default=None, repr=False)  # a judge that is a model
    _light_judges: dict[str, Judge] = field(default_factory=dict, repr=False)
    _pending_step: str = field(default="", repr=False)
    _announced: set[str] = field(default_factory=set, repr=False)
    _model: AudioModel | None = field(default=None, repr=False)
    _features: dict[tuple[str, str], dict[str, Artifact]] = field(default_factory=dict, repr=False)

    def content_hash(self, ref: str, columns: Mapping[str, str] | None = None) -> str:
        """Hash of all files that a corpus is read from; with `unread`, of its name if it is not here."""
        from undersong.corpora.registry import corpus_hash, is_local_corpus

        if self.unread and not is_local_corpus(ref):
            return hashlib.sha256(canonical_json(["not read", ref, dict(columns or {})]).encode()).hexdigest()
        cache_folder = self.store.root / FILE_HASHES_FOLDER if isinstance(self.store, Store) else None
        return corpus_hash(ref, columns, cache_folder)

    def judge(self, name: str, refusals: Sequence[str]) -> Judge:
        """Judge of a name, made once. A judge that is a model replaces the audited model in memory."""
        from undersong.evaluation.judges.registry import make_judge
        from undersong.settings.judge_names import judge_weights

        key = f"{name} {list(refusals)}"
        if key in self._light_judges:
            return self._light_judges[key]
        if self._judge is not None and self._judge[0] == key:
            return self._judge[1]
        judge = make_judge(name, refusals, self.loading.device, self.loading.dtype)
        if judge_weights(name):
            self._model, self._judge = None, (key, judge)
            release_memory()  # before the judge reads its weights, at the first verdict
        else:
            self._light_judges[key] = judge
        return judge

    def announce(self, line: str) -> None:
        """Report the next step, if there is a listener."""
        if self.say is not None:
            self.say(line)

    def begin_step(self, line: str, number: int, total: int) -> None:
        """Report a numbered step, when the first artifact of it is made; `end_step` says so if there is none to make.

        A plan makes nothing, and is told of the step at once.
        """
        if not isinstance(self.store, Store):
            self.announce(line)
            return
        self._pending_step = f"{line} ({number} of {total})"
        self.store.before_make = self._announce_step

    def end_step(self) -> None:
        """Report a step of which all artifacts were in the store."""
        if self._pending_step:
            self.announce(f"{self._pending_step}: in the store")
        self._pending_step = ""

    def _announce_step(self) -> None:
        if self._pending_step:
            self.announce(self._pending_step)
        self._pending_step = ""

    def announce_once(self, line: str) -> None:
        """Report a line, unless it was reported before."""
        if line in self._announced:
            return
        self._announced.add(line)
        if self.note is None:
            self.announce(line)
        else:
            self.note(line)

    def watcher(self, description: str) -> ProgressCallback | None:
        """Progress callback for a pass over many items; None if `say` is None."""
        from undersong.encoders.batching import watch_progress

        return watch_progress(description, self.say)

    def model(self, ref: str, features: Sequence[Artifact] = ()) -> AudioModel:
        """Loaded model, with cached audio features from the feature artifacts."""
        from undersong.models.load import load_model

        if self._model is None or self._model.name != ref:
            self._model = self._judge = None  # free the old model; `load_model` empties PyTorch's cache
            self._model = load_model(ref, self.loading)
        for artifact in features:
            self._model.load_cached_features(artifact.hash, _features_loader(artifact))
        return self._model

    def features(self, ref: str, adapter: Artifact | None = None) -> dict[str, Artifact]:
        """The audio features that `compute_features` has made of a model so far, by the hash of their corpus.

        An adapter of a study leaves the encoder as it is; one made elsewhere has features of its own.
        """
        return self._features.setdefault((ref, adapter.hash if adapter and is_imported(adapter) else ""), {})

    @contextmanager
    def model_with_audio(
        self, ref: str, corpora: Sequence[Corpus] | None, adapter: Artifact | None = None, step: int = 0
    ) -> Iterator[AudioModel]:
        """Give the model with an adapter on, if any, and with the audio features that were computed.

        Args:
            ref: The model.
            corpora: The corpora whose features it gets; None: all.
            adapter: An adapter artifact; None: the base.
            step: The step of the adapter.
        """
        from undersong.models.lora import use_adapter

        features, folder = self.features(ref, adapter), adapter_step_folder(adapter, step)
        hashes = features.keys() if corpora is None else {corpus.artifact.hash: None for corpus in corpora}
        with use_adapter(self.model(ref), folder, allow_outside_decoder=is_imported(adapter)):
            # Only now: features of the base do not hold where the adapter reaches the encoder.
            yield self.model(ref, [features[key] for key in hashes if key in features])


def is_imported(adapter: Artifact | None) -> bool:
    """Whether an adapter was made elsewhere, so that it may reach beyond the decoder."""
    return adapter is not None and adapter.stage == IMPORTED_ADAPTER


def adapter_step_folder(adapter: Artifact | None, step: int) -> Path | None:
    """The PEFT folder kept at a step (`tuning.checkpoints.step_folder`, without loading torch); None: the base."""
    return None if adapter is None else adapter.path / f"step-{step:06d}"


def _features_loader(features: Artifact) -> Callable[[], dict[str, AudioFeatures]]:
    from undersong.models.feature_cache import load_features

    return lambda: {k: v for file in sorted(features.path.glob("features-*")) for k, v in load_features(file).items()}
