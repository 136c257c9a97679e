"""Ultrasound images in the style of another image, or in one drawn from a latent space (Hung and Galeotti, DGM4MICCAI 2021)."""
