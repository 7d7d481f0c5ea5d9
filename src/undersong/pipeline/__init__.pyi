from .arm_jobs import (
    arm_names as arm_names,
)
from .audit import (
    audit_study as audit_study,
)
from .planning.plan import (
    plan_study as plan_study,
)
from .planning.plan import (
    summarize_plan as summarize_plan,
)
from .planning.planning_store import (
    plan_artifacts as plan_artifacts,
)
from .planning.power import (
    design_lines as design_lines,
)
from .probing import (
    ProbeOptions as ProbeOptions,
)
from .probing import (
    run_probe as run_probe,
)
from .run import (
    run_arm as run_arm,
)
from .run import (
    run_audit as run_audit,
)
from .screening import (
    ScreeningOptions as ScreeningOptions,
)
from .screening import (
    run_screening as run_screening,
)
from .standalone import (
    EvaluationOptions as EvaluationOptions,
)
from .standalone import (
    TuneOptions as TuneOptions,
)
from .standalone import (
    evaluate_manifest as evaluate_manifest,
)
from .standalone import (
    tune_manifest as tune_manifest,
)
from .verify import (
    PublishedRate as PublishedRate,
)
from .verify import (
    published_rates as published_rates,
)
from .verify import (
    published_source as published_source,
)
