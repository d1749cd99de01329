"""What Prometheus is told: of events (`events`), of the tables' rows (`rows`), and all of a worker (`worker`)."""
