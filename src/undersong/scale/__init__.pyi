from .embedding_job import (
    EmbeddingResult as EmbeddingResult,
)
from .embedding_job import (
    embed_shards as embed_shards,
)
from .streamed_proximity import (
    proximity_shards as proximity_shards,
)
