"""HGT: user embeddings of a heterogeneous graph transformer, clustered by k-means or a self-organising map."""
