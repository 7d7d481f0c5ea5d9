"""Report sections, pages and figures of research."""
