"""The harmful and the ordinary requests that ship as `shipped:harm` and `shipped:ordinary`."""
