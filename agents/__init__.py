"""What happens when an event arrives: one file per subject area, thin. They do not import each other."""
