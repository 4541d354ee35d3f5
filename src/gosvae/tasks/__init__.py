"""Tasks of experts behind one contract: segmentation, detection, depth, keypoints, lanes, features."""
