"""The live feed, /api/live: what changes in the tables, as server-sent events."""
