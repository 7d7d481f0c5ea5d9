from .clip_encoder import (
    ClipEncoder as ClipEncoder,
)
from .registry import (
    ENCODERS_THAT_FIT as ENCODERS_THAT_FIT,
)
from .registry import (
    check_encoder as check_encoder,
)
from .registry import (
    check_installed as check_installed,
)
from .registry import (
    gradients_dim as gradients_dim,
)
from .registry import (
    internal_view as internal_view,
)
from .registry import (
    is_internal as is_internal,
)
from .registry import (
    is_predictor as is_predictor,
)
from .registry import (
    make_encoder as make_encoder,
)
from .registry import (
    needs_model as needs_model,
)
from .spec import (
    ENCODERS as ENCODERS,
)
from .speech import (
    speech_encoder as speech_encoder,
)
from .text import (
    sentence_encoder as sentence_encoder,
)
