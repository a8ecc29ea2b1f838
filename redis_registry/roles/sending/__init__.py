"""A worker's side: what its lives say, and the one sender that says it for all of them."""
