"""The documentation as a site: staged, built strictly, and looked through for what is missing."""
