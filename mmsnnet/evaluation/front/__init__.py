"""The Pareto front with its certainty, and how to find it with less work."""
