"""What a run is told: every setting with its default, and reading them from TOML and the command line."""
