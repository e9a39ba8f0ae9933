"""Run the command line as ``python -m ebsc_cli``."""

from ebsc_cli.app import main

main()
