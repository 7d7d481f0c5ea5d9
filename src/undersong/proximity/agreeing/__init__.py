"""How far axes agree, what a model hears, and how near a pool lies to harm."""
