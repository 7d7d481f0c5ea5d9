from .comprehension import (
    ReplyEncoder as ReplyEncoder,
)
from .comprehension import (
    evaluate_comprehension as evaluate_comprehension,
)
from .context import (
    RunContext as RunContext,
)
from .context import (
    adapter_step_folder as adapter_step_folder,
)
from .corpus import (
    load_corpus as load_corpus,
)
from .embeddings import (
    EmbeddingRequest as EmbeddingRequest,
)
from .embeddings import (
    compute_gradients as compute_gradients,
)
from .embeddings import (
    embed_corpus as embed_corpus,
)
from .embeddings import (
    embed_shard as embed_shard,
)
from .features import (
    MODEL_PACKAGES as MODEL_PACKAGES,
)
from .features import (
    compute_features as compute_features,
)
from .features import (
    encodable_samples as encodable_samples,
)
from .prompt_sets import (
    PromptSetRequest as PromptSetRequest,
)
from .prompt_sets import (
    request_prompts as request_prompts,
)
from .replies import (
    generate_replies as generate_replies,
)
from .replies import (
    import_adapter as import_adapter,
)
from .replies import (
    judge_replies as judge_replies,
)
from .selection import (
    measure_proximity as measure_proximity,
)
from .training import (
    StudyArm as StudyArm,
)
from .training import (
    train_adapter as train_adapter,
)
