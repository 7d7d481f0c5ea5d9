"""The stages of an audit, one function each: a question for the store, and how its answer is made.

Every function returns an artefact; asking again is a look-up that loads no model.
"""

from undersong.pipeline.stages.gradients import compute_gradients
from undersong.pipeline.stages.nearness import measure_proximity
from undersong.stages.comprehension import ReplyEncoder, evaluate_comprehension
from undersong.stages.corpus import load_corpus
from undersong.stages.embeddings import EmbeddingRequest, embed_corpus, embed_shard
from undersong.stages.features import MODEL_PACKAGES, compute_features, encodable_samples
from undersong.stages.replies import (
    PromptSetRequest,
    adapter_step_folder,
    generate_replies,
    judge_replies,
    request_prompts,
)
from undersong.stages.training import StudyArm, train_adapter

__all__ = [
    "MODEL_PACKAGES",
    "StudyArm",
    "PromptSetRequest",
    "ReplyEncoder",
    "EmbeddingRequest",
    "train_adapter",
    "adapter_step_folder",
    "evaluate_comprehension",
    "load_corpus",
    "embed_shard",
    "embed_corpus",
    "compute_features",
    "compute_gradients",
    "encodable_samples",
    "request_prompts",
    "measure_proximity",
    "generate_replies",
    "judge_replies",
]
