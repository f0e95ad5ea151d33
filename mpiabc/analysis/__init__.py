"""What is made of a run's results: a posterior with a density, of populations and of pooled simulations."""
