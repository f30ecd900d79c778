"""The conscience: reviews, alternatives, and the pairs made of them."""
