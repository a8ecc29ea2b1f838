"""Programs to run, read and copy; none of them is part of the package."""
