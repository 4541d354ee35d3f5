"""What an expert is asked for, behind one contract: segmentation, detection, depth, keypoints, lanes, features."""
