"""Training in several processes: data parallel (DDP) and fully sharded (FSDP2)."""
