"""Whole histories under real faults, and a judge that convicts any broken promise.

A run is a *stage* (real servers, and processes that are workers, controllers and routers), a *plot*
(what befalls them, seeded), a *notebook* of each process (what it did and saw), and at the end a
*judge* who reads them all. ``python -m tests.chaos --help``.
"""
