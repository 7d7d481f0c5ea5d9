from .options import (
    CheckOptions as CheckOptions,
)
from .options import (
    CheckRequest as CheckRequest,
)
from .result import (
    AxisCheck as AxisCheck,
)
from .result import (
    CheckResult as CheckResult,
)
from .result import (
    RankedSample as RankedSample,
)
from .run import (
    run_check as run_check,
)
