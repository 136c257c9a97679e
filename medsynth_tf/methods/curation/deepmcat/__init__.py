"""An archive sorted without labels: a network trained on the clusters of its own features (Kart, Bai, Glocker, Rueckert, 2021)."""
