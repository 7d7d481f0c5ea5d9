"""What makes the data that ship with undersong: organisms, Mini's learned parts, refusal judges."""
