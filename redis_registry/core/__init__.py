"""What the registry means, on top of what Redis does."""
