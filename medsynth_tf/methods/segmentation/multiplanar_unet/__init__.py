"""Volumes segmented by a 2-D U-Net that learnt from few annotated planes of any direction (Laprade, Perslev, Sporring, 2021)."""
