"""TensorFlow Playground's data, features and training by its published formulas, as one page that needs no network."""
