"""What runs for ever, and survives every error."""
