"""A ledger: tenants, meters, money. It has never heard of a job."""
