"""`undersong screen`: distances of a pool to harm sets on every axis, and the items that a rule keeps."""
