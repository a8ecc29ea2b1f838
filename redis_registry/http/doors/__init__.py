"""Interfaces that other software already speaks, one file each."""
