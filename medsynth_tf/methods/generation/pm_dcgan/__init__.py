"""Fundus photographs of pathological myopia and their masks by one DCGAN (Makinde and Saeed, University of Calgary, 2024)."""
