"""pytest plugin: markers, options, the claim ledger."""
