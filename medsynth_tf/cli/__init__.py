"""The `medsynth` command."""
