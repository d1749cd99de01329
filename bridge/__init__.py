"""How events cross between NATS and the topics. The only place where NATS is spoken."""
