"""Transformations of other optimizers, and of updates as a whole: clipping, masks, averages, injection."""
