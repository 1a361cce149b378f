"""ASLoRA: A shared, B clustered and merged over layers."""
