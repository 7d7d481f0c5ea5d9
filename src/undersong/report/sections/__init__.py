"""One file a section of the page: each turns results into what its template shows, or None where nothing is there."""
