"""The command line: ``redis-registry``."""
