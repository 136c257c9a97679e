"""Fundus photographs from structure and lesion masks at a chosen grade of diabetic retinopathy (Zhou et al., arXiv:1912.04670)."""
