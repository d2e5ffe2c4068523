"""Photos and everything drawn from them. Knows no model: encoding is a callable it is given."""
