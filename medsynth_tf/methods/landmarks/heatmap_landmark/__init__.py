"""Any number of landmarks as one heatmap, found again by Otsu's threshold, opening, cutting and centroids."""
