"""Inference: scheduler, prefill, decoding batch, caches, sampling, beam search, detokenizer, scoring, predictions."""
