"""What is made of a run's file afterwards, without a part in the run: posteriors, predictions, pictures."""
