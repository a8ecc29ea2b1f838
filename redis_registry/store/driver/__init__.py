"""How commands reach Redis, whatever the URL says is there: the driver, with settings that survive."""
