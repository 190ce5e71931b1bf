"""Location, identification, download and verification of data sets."""
