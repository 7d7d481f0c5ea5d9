"""The stages of an audit, one function each: a question for the store, and how its answer is made.

Every function returns an artefact; asking again is a look-up that loads no model.
"""

from undersong.pipeline.stages.answers import Asked, adapter_folder, prompts_of, replies, verdicts
from undersong.pipeline.stages.arms import Arm, adapter
from undersong.pipeline.stages.comprehension import Reader, comprehension
from undersong.pipeline.stages.corpora import corpus
from undersong.pipeline.stages.embedded import View, embed_shard, embeddings
from undersong.pipeline.stages.gradients import gradients
from undersong.pipeline.stages.heard import MODEL_PACKAGES, features, hearable
from undersong.pipeline.stages.nearness import proximity

__all__ = [
    "MODEL_PACKAGES",
    "Arm",
    "Asked",
    "Reader",
    "View",
    "adapter",
    "adapter_folder",
    "comprehension",
    "corpus",
    "embed_shard",
    "embeddings",
    "features",
    "gradients",
    "hearable",
    "prompts_of",
    "proximity",
    "replies",
    "verdicts",
]
