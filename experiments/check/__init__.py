"""Error rates of `undersong check` on the organisms, for docs/how-to/check.md."""
