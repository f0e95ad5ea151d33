"""What is made of a run's file afterwards: nothing here takes part in a run."""
