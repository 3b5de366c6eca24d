"""Rules that treat every entry of an array alike, each family in a file of its own."""
