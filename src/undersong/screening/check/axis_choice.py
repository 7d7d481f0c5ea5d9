"""Choice of the axes of a check: those that are named, those of a model, and sound where clips are compared."""

from __future__ import annotations

from undersong.encoders.spec import (
    DECODER,
    GRADIENT_MATCHING,
    INFLUENCE,
    PREDICTORS,
    REFUSAL,
    TEXT_KINDS,
    EncoderSpec,
    parse_encoder,
)
from undersong.extras import check_model_packages
from undersong.screening.check.options import CheckOptions, CheckRequest
from undersong.screening.check.text_axes import WORDS
from undersong.types import MODALITIES, UndersongError

AUDIO, TEXT = MODALITIES
INTERNAL, SOUND, LOGMEL = "internal", "sound", "logmel"
NETWORK_KINDS = ("speech", "whisper", "speaker")  # encoders of clips that the extra `models` reads


def is_sample_axis(spec: EncoderSpec) -> bool:
    """True for an axis that listens to clips or runs a model; the others measure texts."""
    return not spec.code and spec.kind not in TEXT_KINDS


def wants_sample_axes(request: CheckRequest) -> bool:
    """True if a model or an axis is named that listens to clips or runs a model."""
    return request.model is not None or any(
        is_sample_axis(parse_encoder(name)) for name in (request.axes or {}).values()
    )


def check_named_axes(request: CheckRequest) -> None:
    """Check before anything is read that the axes can be measured.

    Raises:
        UndersongError: An encoder is unknown, needs what is not given, or is an axis that is measured anyway.
    """
    from undersong.encoders.registry import check_installed, needs_model

    _check_options(request)
    for name, encoder in (request.axes or {}).items():
        spec = parse_encoder(encoder)
        if name == WORDS or spec.kind in ("tfidf", "char-ngrams"):
            raise UndersongError(f"Axis {name}={encoder}: words are always measured; leave this axis out.")
        if spec.kind == "text" and spec.option("asr"):
            raise UndersongError(
                f"Axis {name}={encoder}: a check transcribes the data once for all axes; give --transcribe "
                f"{spec.option('asr')}."
            )
        if spec.kind in ("gradients", GRADIENT_MATCHING):
            raise UndersongError(f"Axis {name}={encoder} is one of studies and screenings; take influence.")
        if needs_model(encoder) and request.model is None:
            raise UndersongError(f"Axis {name}={encoder} runs a model; name the model with --model.")
        if spec.kind in NETWORK_KINDS:
            check_model_packages()
        check_installed(encoder)
    if request.model is not None or request.transcribe is not None:
        check_model_packages()
    if request.model is not None:
        from undersong.stages.black_box_models import is_black_box

        if is_black_box(request.model):
            raise UndersongError(
                f"The model {request.model} is known by its replies only and measures nothing; give one with weights."
            )


def _check_options(request: CheckRequest) -> None:
    for option, is_given in (
        ("--rehearse", request.rehearse > 0),
        ("--system-prompt", request.system_prompt is not None),
    ):
        if is_given and request.model is None:
            raise UndersongError(f"{option} needs a model; name it with --model.")
    for option, is_given in (
        ("--rehearse-seeds", request.rehearse_seeds != CheckOptions.rehearse_seeds),
        ("--rehearse-learning-rate", request.rehearse_learning_rate != CheckOptions.rehearse_learning_rate),
    ):
        if is_given and not request.rehearse:
            raise UndersongError(f"{option} needs a rehearsal; add --rehearse STEPS, such as --rehearse 8.")


def check_axes_for_data(request: CheckRequest, modality: str) -> None:
    """Check that the data can be measured on the named axes.

    Raises:
        UndersongError: An axis needs clips and the data have none, or another modality is named.
    """
    for name, encoder in (request.axes or {}).items():
        spec = parse_encoder(encoder)
        if not is_sample_axis(spec):
            continue
        given = spec.option("modality") if spec.kind in PREDICTORS else ""
        if modality != AUDIO and (spec.kind not in PREDICTORS or given == AUDIO):
            raise UndersongError(f"Axis {name}={encoder} listens to clips, and {request.data} has none; leave it out.")
        if given and given != modality:
            raise UndersongError(
                f"Axis {name}={encoder}: {request.data} is spoken, and its transcripts are measured by words; leave "
                "the modality out."
            )


def chosen_axes(request: CheckRequest, modality: str, has_replies: bool) -> dict[str, str]:
    """Encoder of each axis: those that are named, all of the model if none of it is, and sound where there is any.

    Args:
        request: The request.
        modality: `audio` or `text`, of the data.
        has_replies: Whether the data and both references have replies to train on.
    """
    from undersong.encoders.registry import needs_model

    axes = {name: encoder for name, encoder in (request.axes or {}).items() if is_sample_axis(parse_encoder(encoder))}
    if request.model is not None and not any(map(needs_model, axes.values())) and not request.rehearse:
        views = (INTERNAL,) if modality == AUDIO else ()
        gradients = (INFLUENCE,) if has_replies else ()
        axes |= {name: name for name in (*views, DECODER, REFUSAL, *gradients) if name not in axes}
    if modality == AUDIO and LOGMEL not in axes.values() and SOUND not in axes:
        axes[SOUND] = LOGMEL
    return axes
