"""Task-guided variational partial synthesis (Li et al., Nankai University, 2025): patches made online while a classifier learns."""
