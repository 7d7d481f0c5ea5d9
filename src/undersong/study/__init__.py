"""What a study is, and how it is read.  Knows words and files of words; does not know how anything runs."""

from undersong.study.asking import Evaluation, PromptSet, reply_limit
from undersong.study.comprehension import Comprehension
from undersong.study.editors import editor_schema
from undersong.study.reading import (
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
    "editor_schema",
    "load_studies",
    "load_study",
    "packaged_study",
    "parse_study",
    "reply_limit",
    "with_models",
    "with_seeds",
]
