"""Run ebsc from the command line: turn arguments into a configuration, and progress into lines."""
