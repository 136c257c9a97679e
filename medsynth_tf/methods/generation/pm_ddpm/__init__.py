"""Fundus photographs of pathological myopia and their masks by one diffusion model (Makinde and Saeed, University of Calgary, 2024)."""
