"""What leaders and workers of all transports have in common: their messages, and what they do about them."""
