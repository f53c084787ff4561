"""The ``template`` directive."""
