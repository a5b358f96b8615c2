"""How the demo's models were trained."""
