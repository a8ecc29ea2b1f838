"""``python -m redis_registry`` is ``redis-registry``."""

from redis_registry.cli import main

main()
