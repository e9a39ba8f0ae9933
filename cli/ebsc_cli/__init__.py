"""The command line: turns words into a configuration, and progress into lines."""
