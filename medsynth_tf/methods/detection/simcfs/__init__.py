"""Compound figures, simulated from single panels and separated by a detector with the side loss (Yao et al., DGM4MICCAI 2021)."""
