"""The layouts that people bring, each read by one function into (place for messages, sample of our schema)."""
