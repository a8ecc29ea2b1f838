"""Workers: announced, kept alive, drained."""
