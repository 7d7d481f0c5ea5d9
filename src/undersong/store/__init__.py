"""The artifact store: results of each stage, stored under a hash of everything that they were made from."""
