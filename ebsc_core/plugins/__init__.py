"""How a part is written, found and chosen: contracts, hooks, the registry, templates for new packages."""
