"""Looking at datasets: checks of files and records, and views of what a model learns from a batch."""
