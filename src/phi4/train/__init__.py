"""Training: a stage says what trains, on what and how long; everything it does not name stays frozen."""
