from .api import (
    AuditResult as AuditResult,
)
from .api import (
    ComparisonResult as ComparisonResult,
)
from .api import (
    audit as audit,
)
from .api import (
    check as check,
)
from .api import (
    compare as compare,
)
from .api import (
    screen as screen,
)
from .audits.trainer_callback import (
    UndersongCallback as UndersongCallback,
)
from .models.load_options import (
    LoadOptions as LoadOptions,
)
from .screening.check.result import (
    CheckResult as CheckResult,
)
from .screening.pool.output import (
    ScreeningResult as ScreeningResult,
)
from .types import (
    UndersongError as UndersongError,
)

__version__: str
