"""Breaks one line of the package at a time and asks that a named test goes red."""
