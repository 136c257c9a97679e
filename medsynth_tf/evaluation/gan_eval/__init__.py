"""Which generator is best on MY data: a two-sample classifier for each, distances in its features, similarity one to one, a picture.

Source: Tronchin, Sicilia, Cordelli, Ramella, Soda, "Evaluating GANs in Medical Imaging", DGM4MICCAI at MICCAI 2021.
"""
