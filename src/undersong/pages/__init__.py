"""HTML pages: layout, templates, charts, tables and players that reports and verdict pages share."""
