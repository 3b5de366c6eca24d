"""Language models on the command line: `jaxnn train --data text`, `jaxnn predict RUN --prompt TEXT`."""
