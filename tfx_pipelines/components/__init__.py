"""The components that TFX does not have."""
