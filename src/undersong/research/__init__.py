"""Research on where refusals go: probes, directions, defenses, synthesis of studies, registration.

A room without a promise of stability: nothing below imports it, and a reader of results need not open it."""
