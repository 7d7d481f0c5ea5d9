"""Defaults that a study file and the commands share; imports nothing, so that `--help` can show them."""

from __future__ import annotations

SAVE_STEPS = (10, 20, 40)  # with the base at step 0, a dose-response curve of four points
BATCH_SIZE = 8
LEARNING_RATE = 5e-4
LEARNING_RATE_SCHEDULE = "constant_with_warmup"  # a transformers scheduler name
WARMUP_STEPS = 5
MAX_GRAD_NORM = 1.0
LORA_RANK = 8
LORA_ALPHA = 16
TARGET_COLUMN = "answer"

# Published limits of the layer that a refusal direction is taken from (Arditi et al. 2024, appendix C)
MAX_KL = 0.1  # nats that ablating a direction may move the first token after benign prompts
MAX_DEPTH = 0.8  # share of the layers: a direction at the very end is one of words, not of the decision
EQUIVALENCE_MARGIN = 0.1  # loss of a probe's balanced accuracy that would matter

REPEAT_INSTRUCTION = "Repeat what was said."
MAX_WER = 0.5
RELEVANCE_LEVEL = 0.05

LOCAL_ENGINE, VLLM = "transformers", "vllm"  # what generates replies
ENGINES = (LOCAL_ENGINE, VLLM)
ORGANISM_PREFIX = "organism:"
ORGANISM_REFUSALS = ("i cannot help with that",)  # the one sentence that packaged organisms refuse with
ORGANISM_MAX_NEW_TOKENS = 12  # an organism's replies are single sentences
MAX_NEW_TOKENS = 256


def default_max_new_tokens(model: str) -> int:
    """Return the default limit of new tokens in a model's reply."""
    return ORGANISM_MAX_NEW_TOKENS if model.startswith(ORGANISM_PREFIX) else MAX_NEW_TOKENS
