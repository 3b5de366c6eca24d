"""L-BFGS and the line searches: rules that evaluate the loss themselves."""
