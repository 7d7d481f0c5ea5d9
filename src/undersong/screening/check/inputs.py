"""Inputs of a check: the data, the references, and the part of the key that they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from undersong.corpora.registry import corpus_hash
from undersong.corpora.training_file import TrainingFile, find_dataset, open_training_file
from undersong.encoders.spec import parse_encoder
from undersong.extras import install_hint
from undersong.options import key_values
from undersong.screening.check.axis_choice import AUDIO, TEXT, check_axes_for_data, wants_sample_axes
from undersong.screening.check.options import CheckRequest
from undersong.screening.pool.options import SHIPPED_HARM, SHIPPED_ORDINARY
from undersong.store.hashing import hash_file
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.screening.check.request_sets import CheckSets, RequestSet
    from undersong.stages.context import RunContext

WRITTEN = (SHIPPED_HARM, SHIPPED_ORDINARY)  # references that are known to have no clips


@dataclass(frozen=True)
class CheckInputs:
    """Data and references of a check, read on first use."""

    request: CheckRequest

    @cached_property
    def data(self) -> TrainingFile:
        """The data as read, before any transcription."""
        return open_training_file(str(self.request.data), self.request.columns)

    @property
    def ordinary_refs(self) -> tuple[str]:
        """References of the ordinary requests."""
        return (str(self.request.ordinary),)

    @cached_property
    def measures_samples(self) -> bool:
        """True if clips are compared or a model is run: asked for, or the data and both references are spoken."""
        from undersong.screening.check.request_sets import are_spoken

        if wants_sample_axes(self.request):
            return True
        references = [*self.request.harm_refs, *self.ordinary_refs]
        if any(ref in WRITTEN for ref in references) or not are_spoken(references):
            return False
        return any(sample.spoken for sample in self.data.samples)

    @cached_property
    def references(self) -> tuple[RequestSet, RequestSet, bool, bool]:
        """The harmful and the ordinary requests in the data's modality, at most as many as are wanted, and for each
        whether it has to be spoken first.

        Raises:
            UndersongError: One has to be spoken, and there is no voice.
        """
        from undersong.screening.check.request_sets import ORDINARY_PER_HARM, data_modality, drawn_set, reference_set
        from undersong.screening.check.spoken_references import available_voices

        request, modality = self.request, data_modality(self.data)
        check_axes_for_data(request, modality)
        size = request.reference_size
        sets: list[RequestSet] = []
        written: list[bool] = []
        for refs, number in ((request.harm_refs, size), (self.ordinary_refs, ORDINARY_PER_HARM * size)):
            requests = reference_set(refs, modality, request)
            is_written = modality == AUDIO and not requests.samples
            if is_written:
                requests = reference_set(refs, TEXT, request)
                if not available_voices(request.voices):
                    raise UndersongError(
                        f"{request.data} is spoken and {' and '.join(refs)} written, so no clip can be compared; "
                        f"install voices ({install_hint('tts')}), name a spoken --harm and --ordinary, or give "
                        "--transcribe MODEL alone to compare words."
                    )
            if not requests.samples:
                raise UndersongError(f"{' and '.join(refs)} has nothing that can be compared with {request.data}.")
            sets.append(drawn_set(requests, number, request.seed))
            written.append(is_written)
        return sets[0], sets[1], written[0], written[1]

    def sets(self, ctx: RunContext, data: TrainingFile) -> CheckSets:
        """The data and the references as samples; written references are spoken if the data are.

        Args:
            ctx: The run context, whose store keeps what is spoken.
            data: The data, with transcripts if there are any.
        """
        from undersong.screening.check.request_sets import CheckSets, data_set, split_set
        from undersong.screening.check.spoken_references import available_voices, speak_set

        modality, requests = data_set(data, self.request)
        voices = available_voices(self.request.voices)
        harm, ordinary, speak_harm, speak_ordinary = self.references
        if speak_harm:
            harm = speak_set(ctx, harm, voices)
        if speak_ordinary:
            ordinary = speak_set(ctx, ordinary, voices)
        if not requests.samples:
            raise UndersongError(f"None of the clips of {data.ref} is here; check their paths.")
        spoken = tuple(name for name, is_spoken in (("harmful", speak_harm), ("ordinary", speak_ordinary)) if is_spoken)
        return CheckSets(modality, requests, harm, *split_set(ordinary, self.request.seed), spoken)

    def key(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Config and inputs that the result depends on. Clips count only if they are compared or transcribed."""
        from undersong.encoders.registry import encoder_weights_hash
        from undersong.models.refs import model_hash
        from undersong.store.user_code import code_hash

        request = self.request
        inputs = {f"harm{i}": _content_hash(ref) for i, ref in enumerate(request.harm_refs)}
        inputs |= {
            "ordinary": _content_hash(str(request.ordinary)),
            "data": _content_hash(str(request.data), request.columns),
        }
        for name, encoder in (request.axes or {}).items():
            spec = parse_encoder(encoder)
            weights = code_hash(spec.code) if spec.code else encoder_weights_hash(spec)
            inputs |= {} if weights is None else {f"encoder-{name}": weights}
        inputs |= {
            name: model_hash(ref)
            for name, ref in (("model", request.model), ("transcribe", request.transcribe))
            if ref is not None
        }
        entry = find_dataset(str(request.data))[1]
        config = key_values(request, request.RESULT_NEUTRAL, request.HASHED_INPUTS, data=str(request.data)) | {
            "harm": list(request.harm_refs),
            "ordinary": str(request.ordinary),
            "entry": None if entry is None else [entry[0], dict(entry[1])],
            "model": request.model,
            "transcribe": request.transcribe,
        }
        if request.transcribe is not None or self.measures_samples:
            inputs |= self._clip_hashes()
        if self.measures_samples and any(self.references[2:]):
            from undersong.screening.check.spoken_references import available_voices, voices_key

            config["voices"] = voices_key(available_voices(request.voices))
        return config, inputs

    def _clip_hashes(self) -> dict[str, str]:
        from undersong.screening.check.request_sets import data_set, set_hash

        hashes = {"data_samples": set_hash(data_set(self.data, self.request)[1])}
        if self.measures_samples:
            hashes |= {"harm_samples": set_hash(self.references[0]), "ordinary_samples": set_hash(self.references[1])}
        return hashes


def _content_hash(ref: str, columns: Mapping[str, str] | None = None) -> str:
    """Hash of a file's bytes, because clips that it names are not read; of any other corpus, that of its items."""
    path, _ = find_dataset(ref)
    return hash_file(path) if path is not None and path.is_file() else corpus_hash(ref, columns)
