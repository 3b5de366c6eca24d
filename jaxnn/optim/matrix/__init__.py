"""Matrix rules: orthogonalized, projected and preconditioned updates, and their linear algebra."""
