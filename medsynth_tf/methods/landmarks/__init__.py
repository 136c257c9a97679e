"""Methods that find landmarks."""
