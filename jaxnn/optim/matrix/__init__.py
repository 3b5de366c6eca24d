"""Rules for matrices: orthogonalized, projected and preconditioned updates, and the linear algebra that they share."""
