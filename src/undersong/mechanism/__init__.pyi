from .directions import (
    GapCurve as GapCurve,
)
from .directions import (
    RefusalDirection as RefusalDirection,
)
from .directions import (
    fit_direction as fit_direction,
)
from .directions import (
    gap_curve as gap_curve,
)
from .directions import (
    late_gap_change as late_gap_change,
)
from .directions import (
    late_gap_p_value as late_gap_p_value,
)
from .directions import (
    load_direction as load_direction,
)
from .directions import (
    save_direction as save_direction,
)
from .predictors import (
    PredictorSettings as PredictorSettings,
)
from .sample_scores import (
    score_samples as score_samples,
)
