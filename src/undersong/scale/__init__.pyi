from .embedding_shards import (
    EmbeddingResult as EmbeddingResult,
)
from .embedding_shards import (
    embed_shards as embed_shards,
)
from .ray_cluster import (
    RayWorkers as RayWorkers,
)
from .ray_engine import (
    ray_scheduler as ray_scheduler,
)
