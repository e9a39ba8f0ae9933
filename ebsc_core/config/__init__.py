"""Define every setting with its default, and read settings from TOML and the command line."""
