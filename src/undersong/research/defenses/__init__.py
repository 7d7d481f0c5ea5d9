"""Defenses against the loss of refusals, what each costs, and which one to use. Their settings are in
`study.defenses`."""
