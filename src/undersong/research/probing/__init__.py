"""`undersong probe`: where a tuned model lost its refusal, whether the refusal direction is the cause, and what
restores it.
"""
