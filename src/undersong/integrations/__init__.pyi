from .gate.findings import (
    FAILED as FAILED,
)
from .gate.findings import (
    INCONCLUSIVE as INCONCLUSIVE,
)
from .gate.findings import (
    PASSED as PASSED,
)
from .gate.findings import (
    GateFinding as GateFinding,
)
from .gate.findings import (
    exit_code as exit_code,
)
from .gate.inputs import (
    verdicts_from_files as verdicts_from_files,
)
from .gate.inputs import (
    verdicts_from_study as verdicts_from_study,
)
from .gate.rates import (
    CheckedRate as CheckedRate,
)
from .gate.rates import (
    RateCheck as RateCheck,
)
from .gate.rates import (
    RateLimits as RateLimits,
)
from .gate.rates import (
    check_rates as check_rates,
)
from .gate.rates import (
    rate_check_sentence as rate_check_sentence,
)
from .gate.rises import (
    RiseLimits as RiseLimits,
)
from .gate.rises import (
    RiseTest as RiseTest,
)
from .gate.rises import (
    evaluate_rises as evaluate_rises,
)
