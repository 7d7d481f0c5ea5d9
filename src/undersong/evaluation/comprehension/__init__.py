"""Was a spoken request heard, and is the reply to it?  Import the submodule you need."""
