"""TFDS builders of our own, and reading prepared data back; none needs TensorFlow. Importing these imports TFDS."""
