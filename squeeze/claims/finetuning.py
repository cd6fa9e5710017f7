"""Claims about finetuning."""
