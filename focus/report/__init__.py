"""Results that people look at: pictures, tables and the self-contained page of `focus demo`."""
