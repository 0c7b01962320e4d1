"""The tiny world: small pictures whose facts are all known, and what can be said and asked about them."""
