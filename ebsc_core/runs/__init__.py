"""Do what ``ebsc run`` does, from its plan to its folder, and use finished runs."""
