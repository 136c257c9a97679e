"""Methods that sort and choose images."""
