"""What ``ebsc run`` does from its plan to its folder, and what uses a finished run."""
