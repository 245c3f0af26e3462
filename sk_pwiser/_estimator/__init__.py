"""What the user holds: the classifier, its parameters and its predictions."""
