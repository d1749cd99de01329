"""The HTTP face: views of the tables, health and metrics. Decides nothing."""
