"""What the report says about the registration of a study."""

from __future__ import annotations

from undersong.pages import formatting
from undersong.results.schema_registration import QuestionStatus, RegistrationRecord

DIGEST_DIGITS = 12
STATUS_TEXT = {
    "none": "registered before any answer",
    "part": "registered when the store held a part of its answer",
    "all": "registered when the store held its answer",
}


def registration_sentences(registration: RegistrationRecord) -> tuple[str, ...]:
    """Return sentences on the registration: its date, what changed since, and which answers were known before."""
    sentences = [f"Registered on {registration.created} (digest {registration.digest[:DIGEST_DIGITS]})."]
    if not registration.intact:
        sentences.append("The registration file was edited after it was written, so it proves nothing.")
    if registration.changes:
        sentences.append(f"The study was changed after registration: {'; '.join(registration.changes)}.")
    else:
        sentences.append("The study is unchanged since.")
    if registration.rule_changes:
        sentences.append(f"The rules were changed after registration: {'; '.join(registration.rule_changes)}.")
    if registration.primary:
        primary = "; ".join(map(formatting.value_text, registration.primary))
        sentences.append(f"Registered as primary: {primary}.")
    return (*sentences, _question_sentence(registration.questions))


def _question_sentence(questions: list[QuestionStatus]) -> str:
    registered = [question for question in questions if question.registered]
    known, partly = (sum(question.known == state for question in registered) for state in ("all", "part"))
    answered = f"the store held the answer to {known} of them, and a part of it to {partly}"
    count = formatting.count(len(questions), "comparison")
    return f"Of {count}, {len(registered)} were registered; at that time {answered}."


def question_status_text(registration: RegistrationRecord | None, question_id: str) -> str:
    """Return what the registration says about one comparison; empty without a registration."""
    if registration is None:
        return ""
    status = next((question for question in registration.questions if question.id == question_id), None)
    if status is None or not status.registered:
        return "not registered"
    text = STATUS_TEXT[status.known or "none"]
    return text.replace("registered", "registered as primary", 1) if status.family == "primary" else text
