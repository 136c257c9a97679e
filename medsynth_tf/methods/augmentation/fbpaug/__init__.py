"""CT segmentation that does not mind the convolution kernel, by filtered back-projection augmentation (arXiv:2107.08543)."""
