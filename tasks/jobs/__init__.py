"""Which training runs there are, whether they have ended, and what became of them."""
