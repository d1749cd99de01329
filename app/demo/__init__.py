"""A marketplace on one machine to look at: simulated services, a mail sink, live counters."""
