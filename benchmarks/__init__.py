"""How fast a config's model is, beside the bare parts that it is made of and beside a peer of the same sizes."""
