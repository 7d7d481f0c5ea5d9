"""What two corpora have in common, by text and by sound."""
