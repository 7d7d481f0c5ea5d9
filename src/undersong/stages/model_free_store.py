"""Store for the plan of a rehearsal: makes what is cheap, looks up what a network makes, and loads no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from undersong.encoders.spec import parse_encoder
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Inputs, Store
from undersong.types import UndersongError

CHEAP_STAGES = ("corpus", "check_requests", "spoken_requests", "separation", "agreement")
CHEAP_ENCODERS = ("tfidf", "char-ngrams", "logmel")
EXPECTED_STAGES = ("features",)  # the key of a rehearsal has their hash, whether they are computed or not


class ModelFreeStore(Store):
    """Store that makes no artifact of a network.

    Audio features that are missing are returned as they would be. For any other artifact of a network `get_or_make`
    raises UndersongError if it is not in the store.
    """

    def get_or_make(
        self,
        stage: str,
        version: int | str,
        config: Any,
        inputs: Inputs,
        make: Callable[[Draft], None],
        **recorded: Any,
    ) -> Artifact:
        """Look the artifact up, or make it if it needs no network. Arguments as in `Store.get_or_make`.

        Raises:
            UndersongError: A network would have to make it, or as in `Store.get_or_make`.
        """
        encoder = str(config.get("encoder", ""))
        is_cheap = stage in CHEAP_STAGES or (stage == "embeddings" and parse_encoder(encoder).kind in CHEAP_ENCODERS)
        if is_cheap:
            return super().get_or_make(stage, version, config, inputs, make, **recorded)
        if existing := self.find(stage, version, config, inputs):
            return existing
        if stage in EXPECTED_STAGES:
            return self.locate(stage, version, config, inputs)
        subject = f"vectors of {encoder}" if encoder else stage.replace("_", " ")
        raise UndersongError(
            f"A plan loads no model, and the {subject} that the samples to train on depend on are not in the store; "
            "run the command with --store, and without --rehearse and --plan, first."
        )
