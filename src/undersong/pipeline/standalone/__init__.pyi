from .evaluate import (
    EvaluationOptions as EvaluationOptions,
)
from .evaluate import (
    apply_protocol as apply_protocol,
)
from .evaluate import (
    comprehension_options as comprehension_options,
)
from .evaluate import (
    evaluate_manifest as evaluate_manifest,
)
from .tune import (
    tune_manifest as tune_manifest,
)
