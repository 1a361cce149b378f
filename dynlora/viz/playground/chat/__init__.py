"""The Playground of a run that writes: chat and completion side by side, token by token, module by module."""
