"""When and where a run is saved, and what it is known by.

| file | content |
|---|---|
| `saver` | saves a run in its folder, in `train.checkpoints` or those of orbax, and finds it again |
| `orbax` | checkpoints by orbax, for arrays that span processes |
| `background` | the thread that writes |
| `pace` | how many steps or epochs until the next save |
| `identity` | what makes a run the same run |
| `descriptions` | the texts for its parts |
| `lock` | one call at a time in a folder |
| `signals` | SIGTERM and SIGINT end a run after a save |
"""
