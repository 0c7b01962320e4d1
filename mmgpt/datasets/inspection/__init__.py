"""Inspection of datasets: checks of files and records, and views of batches."""
