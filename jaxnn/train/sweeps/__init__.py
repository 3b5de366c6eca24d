"""Many runs as one compiled program.

| file | content |
|---|---|
| `sweep` | settings x seeds x data orders, and the table of their metrics |
| `sweep_runs` | one of these runs, in stages |
| `staged` | a beginning, epochs and an end as functions, of one run or of some side by side |
| `runs` | `map_runs`: chunks of runs that fit into memory, on all devices |
| `chunks` | a chunk in pieces, saved in between |
| `store`, `stamp` | the folder of finished chunks, and what it is known by |
| `tables` | metrics as CSV and NPZ |
"""
