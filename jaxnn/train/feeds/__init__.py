"""Where the batches of an epoch come from.

| file | content |
|---|---|
| `arrays` | data on the device: an epoch is one compiled program, or some |
| `stream` | batches from outside: one compiled step for each |
| `sources` | what a stream reads: rows of files, functions of a position, iterables |
| `prefetch` | batches read and copied ahead of their use |
"""
