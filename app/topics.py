"""Every topic: its name, what its key is, and the type of what is in it. The one place for names."""
