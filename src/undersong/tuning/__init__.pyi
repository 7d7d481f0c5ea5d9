from .checkpoints import (
    step_folder as step_folder,
)
from .config import (
    LoraRecipe as LoraRecipe,
)
from .frame_pruning import (
    audio_token_mask as audio_token_mask,
)
from .frame_pruning import (
    prune_frames as prune_frames,
)
from .reproducibility import (
    sample_order as sample_order,
)
from .reproducibility import (
    temporary_seed as temporary_seed,
)
from .train import (
    TuningResult as TuningResult,
)
from .train import (
    finetune_decoder as finetune_decoder,
)
