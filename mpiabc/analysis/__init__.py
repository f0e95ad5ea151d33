"""What is made of a finished run, or of one that goes on: from what its file holds alone."""
