from .options import (
    CheckOptions as CheckOptions,
)
from .options import (
    CheckRequest as CheckRequest,
)
from .rehearsal_plan import (
    plan_check as plan_check,
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
