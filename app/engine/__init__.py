"""The log, the lanes over it and the Faust transport. Knows nothing of the marketplace."""
