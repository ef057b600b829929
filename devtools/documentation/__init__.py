"""What makes the pictures of the help pages, the docs and the registry."""
