"""The engine as transports of Faust: stock Faust agents and tables over the engine's logs, by the broker's URL."""
