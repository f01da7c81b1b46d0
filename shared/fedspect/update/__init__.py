"""What travels between headquarters and plants: schema, encoding, checks, and the exchange of a round."""
