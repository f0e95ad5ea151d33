"""Other packages' algorithms on our schedulers: one file for each of them."""
