from .evaluate import (
    evaluate_manifest as evaluate_manifest,
)
from .judge import (
    judge_file as judge_file,
)
from .options import (
    EvaluationOptions as EvaluationOptions,
)
from .options import (
    JudgeOptions as JudgeOptions,
)
from .options import (
    TuneOptions as TuneOptions,
)
from .options import (
    apply_protocol as apply_protocol,
)
from .tune import (
    tune_manifest as tune_manifest,
)
