"""The marketplace's rules, pure: no clock, no random, no input or output."""
