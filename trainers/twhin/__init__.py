"""TwHIN: node embeddings by translations over relations (El-Kishky et al., KDD 2022), clustered by k-means."""
