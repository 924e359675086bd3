"""What an address on the Hugging Face Hub begins with."""

HUB = "hf://"
