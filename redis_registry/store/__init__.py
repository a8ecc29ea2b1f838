"""What Redis does, atomically. The only floor that knows redis-py."""
