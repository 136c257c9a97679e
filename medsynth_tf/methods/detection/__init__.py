"""Methods that find objects and frame them."""
