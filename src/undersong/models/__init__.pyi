from .audio_features import (
    AudioFeatures as AudioFeatures,
)
from .audio_features import (
    clip_key as clip_key,
)
from .audio_inputs import (
    prepare_padded_windows as prepare_padded_windows,
)
from .audio_lm import (
    AudioModel as AudioModel,
)
from .families import (
    AUDIO_FLAMINGO_3 as AUDIO_FLAMINGO_3,
)
from .families import (
    ActivationView as ActivationView,
)
from .families import (
    Family as Family,
)
from .feature_cache import (
    cache_audio_features as cache_audio_features,
)
from .feature_cache import (
    load_features as load_features,
)
from .feature_cache import (
    save_features as save_features,
)
from .load import (
    check_device as check_device,
)
from .load import (
    load_model as load_model,
)
from .load import (
    supports_bfloat16 as supports_bfloat16,
)
from .load_options import (
    DEFAULT_LOAD_OPTIONS as DEFAULT_LOAD_OPTIONS,
)
from .load_options import (
    LoadOptions as LoadOptions,
)
from .lora import (
    new_lora as new_lora,
)
from .lora import (
    save_adapter as save_adapter,
)
from .lora import (
    use_adapter as use_adapter,
)
from .refs import (
    organism_folder as organism_folder,
)
from .weights import (
    module_hashes as module_hashes,
)
from .weights import (
    read_tensors as read_tensors,
)
