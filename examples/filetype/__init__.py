"""A small real model behind the registry: three workers under agents, and a client that never fails.

- ``server``: an ordinary HTTP server that knows nothing of the registry.
- ``client``: asks whoever may take work, and somebody else when that one fails.
- ``fleet``: all of it on an embedded server, with workers killed and restarted all the while.
"""
