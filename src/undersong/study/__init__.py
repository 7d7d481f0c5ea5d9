"""What a study is, and how it is read.  Knows words and files of words; does not know how anything runs."""

from undersong.study.comprehension import Comprehension
from undersong.study.evaluation import Evaluation, PromptSet, default_max_new_tokens
from undersong.study.json_schema import study_json_schema
from undersong.study.load import (
    StudyFile,
    load_studies,
    load_study,
    packaged_study,
    parse_study,
    with_models,
    with_seeds,
)
from undersong.study.schema import Rule, Selection, Study, Tuning

__all__ = [
    "Comprehension",
    "Evaluation",
    "PromptSet",
    "Rule",
    "Selection",
    "Study",
    "StudyFile",
    "Tuning",
    "study_json_schema",
    "load_studies",
    "load_study",
    "packaged_study",
    "parse_study",
    "default_max_new_tokens",
    "with_models",
    "with_seeds",
]
