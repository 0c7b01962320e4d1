"""Continuous batching: scheduler, decoding batch, KV cache, prefix cache, prefill, beam search, detokenizer."""
