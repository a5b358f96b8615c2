"""Tables from records, beside the paper's."""
