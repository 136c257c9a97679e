"""Segmentation of volumes from few annotated planes, by a 2-D U-Net that sees planes of all directions (Laprade, Perslev, Sporring, 2021)."""
