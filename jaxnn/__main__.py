"""`python -m jaxnn`: the same as the console script `jaxnn`."""

from jaxnn.cli.entry import main

if __name__ == "__main__":
    raise SystemExit(main())
