"""The AsyncAPI document: what is heard on NATS (`heard`), what we say there (`said`), and all of it (`document`)."""
