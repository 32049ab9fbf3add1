"""The sub-commands of the console script `forecast`, one module each."""
