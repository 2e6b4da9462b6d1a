"""What the database must look like: migrations run, checked and undone."""
