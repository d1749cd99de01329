"""The log on Kafka: many workers, one transaction for what follows from a batch."""
