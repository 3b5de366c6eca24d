"""The command line (floor 9): `jaxnn train`, `jaxnn predict`, `jaxnn study`, `jaxnn playground`, `jaxnn gallery`."""
