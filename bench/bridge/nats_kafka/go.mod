module a4co.local/bench/nats-kafka

go 1.22

require github.com/nats-io/nats-kafka v1.4.2
