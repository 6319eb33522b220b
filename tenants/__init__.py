"""The ground: people, tenants, rights, and the truth about who did what."""
