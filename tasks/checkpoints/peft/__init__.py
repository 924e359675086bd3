"""LoRA adapters as PEFT writes them, by themselves and on their base."""
