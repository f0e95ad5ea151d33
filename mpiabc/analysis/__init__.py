"""What is made of a run's results: posteriors with a density, pictures, predictions, files for others."""
