"""What is remembered: one file per table, typed, without decisions."""
