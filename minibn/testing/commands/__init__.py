"""The command line, and what the pytest plugin shares with it."""
