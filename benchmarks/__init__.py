"""Speed of a config's model, compared with its bare components and with a peer of the same sizes."""
