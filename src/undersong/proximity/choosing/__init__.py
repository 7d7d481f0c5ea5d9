"""Which items of a ranking are kept, and what they are beside the others."""
