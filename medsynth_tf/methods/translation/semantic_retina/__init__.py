"""Semantic label maps of the diabetic retina to photographs (Son et al., Imperial College London, 2021), by SPADE."""
