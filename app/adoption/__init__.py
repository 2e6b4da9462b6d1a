"""Sessions that another MongoDB adapter stored, taken over; their source is only read."""
