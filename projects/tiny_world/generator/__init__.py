"""Generator of the tiny world: small images with known facts, and texts, questions and dialogues about them."""
