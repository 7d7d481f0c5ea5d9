"""The stages of an audit, one function each: a question for the store, and how its answer is made.

Every function returns an artefact; asking again is a look-up that loads no model.
"""

from undersong.pipeline.stages.answers import (
    PromptSetRequest,
    adapter_step_folder,
    generate_replies,
    judge_replies,
    request_prompts,
)
from undersong.pipeline.stages.arms import StudyArm, train_adapter
from undersong.pipeline.stages.comprehension import ReplyEncoder, evaluate_comprehension
from undersong.pipeline.stages.corpora import load_corpus
from undersong.pipeline.stages.embedded import EmbeddingRequest, embed_corpus, embed_shard
from undersong.pipeline.stages.gradients import compute_gradients
from undersong.pipeline.stages.heard import MODEL_PACKAGES, compute_features, encodable_samples
from undersong.pipeline.stages.nearness import measure_proximity

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
