"""Variational autoencoders of small sets of images, sampled along the geometry that they learned (Chadebec, Allassonnière 2021)."""
